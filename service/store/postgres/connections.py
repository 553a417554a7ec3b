"""Connections to PostgreSQL, which are made again when they were lost, and the meaning of its errors."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from service.connection_trouble import what_hinders
from service.errors import CannotStoreError, ServiceError, StoreError, UniqueViolationError

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
"""A server that has not answered for so long is taken for gone. No statement of ours takes that long, and none waits
for a lock longer than the five seconds below.
"""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0

_SETTINGS = {
    "application_name": "corral",
    # A process that stops in the middle of a transaction must not hold up the others.
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "10000",
    # Every statement is a few look-ups by index, in the index's order. To compile one takes longer than to run it.
    # A plan must not be a walk through the whole table, also when it is made while a table is small or not analyzed.
    "jit": "off",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
}

_DURABLE = """
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
_UNABLE_CLASSES = frozenset({"08", "28", "53", "57", "58"})
"""Trouble with the connection, a user who is not let in, no resources (a full disk), an operator's intervention, and
trouble outside PostgreSQL.
"""
_UNABLE_STATES = frozenset({"25006", "25P03", "25P04", "55P03", "40001", "40P01"})
"""Read-only (a standby), time-outs in a transaction, and those of _IN_THE_WAY."""
_IN_THE_WAY = frozenset({"40001", "40P01", "55P03"})
"""Transactions that could not be serialised, a deadlock, a lock that was not got in time."""


class Link:
    """One connection. When it was lost it is made again for the next who asks, with growing pauses between failures."""

    def __init__(self, url: str, **settings: str) -> None:
        self._url = url
        self._settings = {**_SETTINGS, **settings}
        self._connection: asyncpg.Connection[Any] | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._not_before = 0.0
        self._trouble: ServiceError | None = None

    async def get(self) -> asyncpg.Connection[Any]:
        """The connection. Raises CannotStoreError when the server cannot be reached; during a pause it does not try."""
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        loop = asyncio.get_running_loop()
        if self._trouble is not None and loop.time() < self._not_before:
            raise CannotStoreError(str(self._trouble))
        try:
            self._connection = await connect(self._url, self._settings)
        except Exception as error:
            self._not_before = loop.time() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            if self._trouble is None:
                # With the address, which callers are not told.
                _log.warning("%s cannot be used: %s", shown(self._url), str(error) or type(error).__name__)
            self._trouble = translated(error)
            raise CannotStoreError(str(self._trouble)) from error
        self._pause = _FIRST_PAUSE_SECONDS
        self._trouble = None
        return self._connection

    async def get_within(self, seconds: float) -> asyncpg.Connection[Any]:
        """The connection, for which it tries again for so long. Raises CannotStoreError."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            try:
                return await self.get()
            except CannotStoreError:
                if loop.time() >= end:
                    raise
                await asyncio.sleep(self.pause_seconds)

    @property
    def pause_seconds(self) -> float:
        """How long to wait before asking again."""
        return max(0.0, self._not_before - asyncio.get_running_loop().time())

    def is_lost_by(self, error: BaseException) -> bool:
        """Whether the connection is of no use after this error."""
        return self._connection is None or self._connection.is_closed() or isinstance(error, TimeoutError)

    def lose(self) -> None:
        """Drop the connection at once."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """End the connection properly."""
        if self._connection is None:
            return
        try:
            await self._connection.close(timeout=_CONNECT_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            self.lose()


async def connect(
    url: str, settings: dict[str, str], *, answer_seconds: float | None = _ANSWER_SECONDS
) -> asyncpg.Connection[Any]:
    """A new connection. Its commits are on disk when they are answered, unless the settings say otherwise."""
    connection = await asyncpg.connect(
        url, timeout=_CONNECT_SECONDS, command_timeout=answer_seconds, server_settings=settings
    )
    if "synchronous_commit" not in settings:
        try:
            await connection.execute(_DURABLE)
        except BaseException:
            connection.terminate()
            raise
    return connection


def shown(url: str) -> str:
    """The place of the database, without user and password."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"PostgreSQL {place}{parts.path}"


def lost(error: BaseException) -> CannotStoreError:
    """The error for a connection that broke."""
    return CannotStoreError(f"the connection to the database was lost ({error}); try again later")


def is_in_the_way(error: BaseException) -> bool:
    """Whether the transaction stood in another's way, and may succeed the next time."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in _IN_THE_WAY


def translated(error: BaseException) -> ServiceError:
    """The store's own error for one of PostgreSQL's, or of the connection."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, asyncpg.UniqueViolationError):
        return UniqueViolationError(str(error))
    if _is_about_the_whole_database(error):
        reason = _what_is_told(error)
        return CannotStoreError(f"the database cannot be used at the moment: {reason}; try again later")
    return StoreError(f"{type(error).__name__}: {error}")


def _what_is_told(error: BaseException) -> str:
    """What callers are told: no address, be it the server's or the one of ours that it does not let in."""
    match error:
        case TimeoutError():
            return "it did not answer in time"
        case OSError():
            return what_hinders(error)
        case asyncpg.InvalidAuthorizationSpecificationError():
            return "it does not let the service's user in"
        case _:
            return str(error).partition("\n")[0] or type(error).__name__


def _is_about_the_whole_database(error: BaseException) -> bool:
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in _UNABLE_CLASSES or state in _UNABLE_STATES
    return isinstance(error, OSError | TimeoutError)
