"""The time limits of one call to a backend, kept by one timer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Protocol

from service.backend.http.connection import Connection
from service.errors import BackendError, Fault

_SECOND_LOOK_SECONDS = 0.05
_LATE_SECONDS = 1.0

FIRST_BYTE_TIMEOUT = "first_byte_timeout"
STALLED = "stalled"
"""The codes of the limits that a backend which hangs meets, and one that is slow."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long the parts of a call may take, in seconds; None: as long as the attempt."""

    connect: float = 5.0
    first_byte: float | None = 1800.0
    """From the start of the call until the headers, which Ollama sends with the first token: queue, load and prompt."""
    stall: float | None = 900.0
    """Between two pieces of the body, while one is waited for."""
    attempt: float = 14_400.0

    def for_whole_reply(self) -> Deadlines:
        """The limits of a reply that is asked for whole: it is silent until it is done."""
        return replace(self, first_byte=None, stall=None)


class Patience(Protocol):
    """How long the first byte of one call may take, where that changes while it is waited for."""

    def due(self, now: float) -> float:
        """Until when, as things stand; both are times of the loop."""

    def run_out(self) -> BackendError | None:
        """That time is over: the error that ends the call, or None when it goes on."""


class DeadlineWatch:
    """Ends a call that takes too long.

    The timer is set once and looks, when it fires, at how far the call has come; progress costs nothing. A time that
    has run out is looked at twice: where timers run before input (uvloop), or after a pause of the whole process, bytes
    may have arrived that nobody has seen.
    """

    __slots__ = (
        "_armed_for",
        "_backend",
        "_connection",
        "_handle",
        "_is_second_look",
        "_limits",
        "_loop",
        "_patience",
        "_seen_bytes",
        "_started",
        "_waiting_since",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Deadlines,
        backend: str,
        connection: Connection,
        started: float,
        patience: Patience | None = None,
    ) -> None:
        """``started`` is the loop's time from which the call counts; ``patience`` goes before ``limits.first_byte``."""
        self._loop = loop
        self._limits = limits
        self._backend = backend
        self._connection = connection
        self._patience = patience
        self._started = started
        self._waiting_since: float | None = None
        self._seen_bytes = 0
        self._is_second_look = False
        first = limits.first_byte or limits.attempt if patience is None else patience.due(started) - started
        self._arm(started + min(first, limits.stall or limits.attempt, limits.attempt))

    def begin_wait(self) -> None:
        """The next piece of the body is waited for."""
        self._waiting_since = self._loop.time()
        self._seen_bytes = self._connection.received_bytes

    def end_wait(self) -> None:
        """A piece has come. What its reader does with it is not the backend's time."""
        self._waiting_since = None

    def stop(self) -> None:
        self._handle.cancel()

    def _arm(self, when: float) -> None:
        self._armed_for = when
        self._handle = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        due = self._due(now)
        if due > now:
            self._is_second_look = False
            self._arm(self._next_look(now, due))
        elif self._is_second_look and now - self._armed_for < _LATE_SECONDS:
            error = self._overdue(now)
            if error is None:
                self._is_second_look = False
                self._arm(self._next_look(now, self._due(now)))
            else:
                self._connection.fail(error)
        else:
            self._is_second_look = True
            self._arm(now + _SECOND_LOOK_SECONDS)

    def _next_look(self, now: float, due: float) -> float:
        """Until the head has come the stall limit does not run, and may be over before ``due`` once it does."""
        stall = self._limits.stall
        return due if stall is None or self._connection.incoming.has_head else min(due, now + stall)

    def _due(self, now: float) -> float:
        limits = self._limits
        ceiling = self._started + limits.attempt
        if not self._connection.incoming.has_head:
            if self._patience is not None:
                return min(ceiling, self._patience.due(now))
            return ceiling if limits.first_byte is None else min(ceiling, self._started + limits.first_byte)
        if limits.stall is None:
            return ceiling
        if self._waiting_since is None:
            return min(ceiling, now + limits.stall)
        received = self._connection.received_bytes
        if received > self._seen_bytes:
            # Something has come, even if nothing of the body: the wait begins anew.
            self._seen_bytes = received
            self._waiting_since = now
        return min(ceiling, self._waiting_since + limits.stall)

    def _overdue(self, now: float) -> BackendError | None:
        limits, name = self._limits, self._backend
        if now >= self._started + limits.attempt:
            # The same request would run as long again, in a seat that others wait for.
            what = f"{name} had not finished after {limits.attempt:g} s, the limit of an attempt"
            return BackendError(f"{what} (timeouts.attempt_seconds)", code="attempt_timeout", fault=Fault.PERMANENT)
        if self._connection.incoming.has_head:
            what = f"{name} stopped sending for {limits.stall:g} s in the middle of its reply (timeouts.stall_seconds)"
            return BackendError(what, code=STALLED, fault=Fault.TRANSIENT)
        if self._patience is not None:
            return self._patience.run_out()
        return silent_too_long(f"{name} sent nothing for {limits.first_byte:g} s")


def silent_too_long(what: str) -> BackendError:
    """The error of a call whose first byte did not come in time."""
    return BackendError(what, code=FIRST_BYTE_TIMEOUT, fault=Fault.TRANSIENT)
