"""Who did what to keys and to the service, in the log at once and in a table for as long as the log of requests.

What is done by a write of its own, as with keys, has its row in that write: neither is ever stored without the other.
Whatever else is done waits for no disk. Its row is written at once where that can be, and kept until then.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, NamedTuple

from service.clock import Clock
from service.errors import ServiceError
from service.store.audit import SIGN_IN_FAILED, AuditEntry, AuditFilter, AuditRow, AuditStore

_log = logging.getLogger(__name__)

_FLUSH_SECONDS = 1.0
_MOST_WAITING = 1_000
"""Rows that wait for a database that takes no writes; beyond it the newest stand in the log only."""
_MOST_ADDRESSES = 20
"""Addresses whose failed sign-ins have rows of their own in one minute; those of all others share one."""
_OTHERS = "others"
_MINUTE_MS = 60_000


class Action(StrEnum):
    """What is written down."""

    KEY_CREATED = "key_created"
    KEY_CHANGED = "key_changed"
    """A demo key has got another text, or is used again."""
    KEY_REVOKED = "key_revoked"
    BACKEND_DRAINED = "backend_drained"
    BACKEND_RESUMED = "backend_resumed"
    RELOADED = "reloaded"
    RELOAD_FAILED = "reload_failed"
    PURGED = "purged"
    SIGN_IN_FAILED = SIGN_IN_FAILED


class ActorKind(StrEnum):
    """What an actor is known by."""

    KEY = "key"
    ADDRESS = "address"
    """Nothing but its address."""
    ADMIN_SOCKET = "admin socket"
    COMMAND_LINE = "command line"
    """A command while no service runs."""
    START = "start"
    """The configuration with which the service was started."""
    SIGNAL = "signal"


class Actor(NamedTuple):
    """Who did it, and from where. A key's text, or a token, is never part of it."""

    kind: ActorKind
    key_id: str | None = None
    key_name: str | None = None
    person: str | None = None
    """Whom the key named."""
    address: str | None = None
    """The client's, as trusted proxies tell it."""


START = Actor(ActorKind.START)
COMMAND_LINE = Actor(ActorKind.COMMAND_LINE)
SIGNAL = Actor(ActorKind.SIGNAL)


def audit_row(
    action: Action, by: Actor, now: int, subject: str | None = None, subject_name: str | None = None, **details: Any
) -> AuditRow:
    """The row of something that is done now (milliseconds since the epoch). ``details`` are JSON."""
    who = by.kind, by.key_id, by.key_name, by.person, by.address
    return AuditRow(now, now, action, *who, subject, subject_name, json.dumps(details))


def log_done(row: AuditRow) -> None:
    """Say in the log what was done."""
    words = [f"{row.action} by {row.actor}"]
    if row.key_id is not None:
        words.append(f"{row.key_id} {row.key_name!r}")
    if row.person is not None:
        words.append(f"for {row.person!r}")
    if row.address:
        words.append(f"from {row.address}")
    said = " ".join(words)
    if row.subject is not None:
        said += f": {row.subject}" + (f" {row.subject_name!r}" if row.subject_name is not None else "")
    details = json.loads(row.details)
    _log.info("%s%s", said, f" {details}" if details else "")


class Audit:
    """The rows of actions on their way to the table, and how they are read."""

    def __init__(self, store: AuditStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[AuditRow] = []
        self._failures: dict[str, AuditRow] = {}
        """By their slots."""
        self._minute = 0
        self._addresses: set[str] = set()
        """Those that have failed in this minute, as far as they have rows of their own."""
        self._said: set[str] = set()
        """The slots of this minute that have a line in the log."""
        self._something = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._lost = 0
        self._is_refused = False
        """The database has not taken what was last to be written."""

    async def record(
        self, action: Action, by: Actor, subject: str | None = None, subject_name: str | None = None, **details: Any
    ) -> None:
        """Write down what was done, before it is answered. It counts as done, also while the database takes no writes:
        then the row waits for it, and the log has the line.
        """
        self.note(action, by, subject, subject_name, **details)
        await self._flush_or_warn()

    def note(
        self, action: Action, by: Actor, subject: str | None = None, subject_name: str | None = None, **details: Any
    ) -> None:
        """The same for what waits for nothing: the row is written within a second."""
        row = audit_row(action, by, self._clock.now_ms(), subject, subject_name, **details)
        log_done(row)
        if len(self._waiting) >= _MOST_WAITING:
            self._lost += 1
        else:
            self._waiting.append(row)
        self._something.set()

    def note_failed_sign_in(self, address: str, reason: str, by: Actor | None = None) -> None:
        """Somebody at this address has shown a key or token that opens nothing. ``by``: whose it was, where that is
        known, as of one that is revoked.

        Those of one address, key and reason in one minute share a row, and a line of the log; those of all addresses
        beyond the first 20 of a minute, too.
        """
        now = self._clock.now_ms()
        if now // _MINUTE_MS != self._minute:
            self._minute = now // _MINUTE_MS
            self._addresses.clear()
            self._said.clear()
        if address not in self._addresses:
            if len(self._addresses) < _MOST_ADDRESSES:
                self._addresses.add(address)
            else:
                address, by, reason = _OTHERS, None, "any"
        actor = (by or Actor(ActorKind.ADDRESS))._replace(address=address)
        slot = f"{self._minute} {address} {actor.key_id or '-'} {reason}"
        row = audit_row(Action.SIGN_IN_FAILED, actor, now, reason=reason)._replace(slot=slot)
        if slot not in self._said:
            self._said.add(slot)
            log_done(row)
        known = self._failures.get(slot)
        if known is not None:
            self._failures[slot] = known._replace(times=known.times + 1, last_at=now)
        elif len(self._failures) >= _MOST_WAITING:
            self._lost += 1
        else:
            self._failures[slot] = row
        self._something.set()

    async def page(self, which: AuditFilter, most: int, skipped: int) -> tuple[list[AuditEntry], int]:
        """A page of what was done, newest first, and how many rows there are in all."""
        await self._flush_or_warn()
        return await self._store.page(which, most, skipped)

    async def prune(self, before: int) -> int:
        """Forget a batch of rows older than ``before``; how many."""
        return await self._store.prune(before)

    @asynccontextmanager
    async def kept_to_the_end(self) -> AsyncIterator[Audit]:
        """Write down at the end what waits."""
        try:
            yield self
        finally:
            await self._flush_or_warn()

    async def keep_writing(self) -> None:
        """Write what has gathered, at most a second after it came; never returns."""
        while True:
            await self._something.wait()
            await self._flush_or_warn()
            await asyncio.sleep(_FLUSH_SECONDS)

    async def _flush_or_warn(self) -> None:
        try:
            await self._flush()
        except ServiceError as error:
            # It is tried every second, however long that lasts.
            if not self._is_refused:
                _log.warning("what was done could not be written down yet: %s", error)
            self._is_refused = True
        else:
            self._is_refused = False

    async def _flush(self) -> None:
        async with self._flushing:
            if self._lost:
                _log.warning("%d rows are missing in the audit: the database took no writes", self._lost)
                self._lost = 0
            self._something.clear()
            rows, failures = self._waiting, self._failures
            self._waiting, self._failures = [], {}
            try:
                if rows or failures:
                    await self._store.append([*rows, *failures.values()])
            except ServiceError:
                self._take_back(rows, failures)
                raise

    def _take_back(self, rows: list[AuditRow], failures: dict[str, AuditRow]) -> None:
        self._lost += max(0, len(rows) + len(self._waiting) - _MOST_WAITING)
        self._waiting = (rows + self._waiting)[:_MOST_WAITING]
        for slot, row in self._failures.items():
            known = failures.get(slot)
            failures[slot] = row if known is None else row._replace(at=known.at, times=known.times + row.times)
        self._failures = failures
        self._something.set()
