"""Connections to PostgreSQL that are made again when they are lost, and what its errors mean."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from service.errors import CannotStoreError, ServiceError, StoreError, UniqueViolationError

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
"""A server that has said nothing for so long is gone: no statement of ours takes as long, and none waits longer for a
lock than the five seconds below.
"""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0

_SETTINGS = {
    "application_name": "corral",
    # A process that was stopped in the middle of a transaction must not hold up the others.
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "10000",
    # Every statement is a few look-ups by index, in the order of that index. Compiling them takes longer than running
    # them, and a plan that was made while a table was small, or never analyzed, must not be a walk through all of it.
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
_UNABLE_CLASSES = frozenset({"08", "53", "57", "58"})
"""Connection trouble, no resources (a full disk), the operator's intervention, trouble outside of PostgreSQL."""
_UNABLE_STATES = frozenset({"25006", "25P03", "25P04", "55P03", "40001", "40P01"})
"""Read-only (a standby), time-outs in a transaction, and what stands below."""
_IN_THE_WAY = frozenset({"40001", "40P01", "55P03"})
"""Transactions that could not be put in a row, a deadlock, a lock that was not got."""


class Link:
    """One connection; whoever asks for it after it was lost makes it again, but not more often than now and then."""

    def __init__(self, url: str, **settings: str) -> None:
        self._url = url
        self._settings = {**_SETTINGS, **settings}
        self._connection: asyncpg.Connection[Any] | None = None
        self._pause = _FIRST_PAUSE_SECONDS
        self._not_before = 0.0
        self._trouble: ServiceError | None = None

    async def get(self) -> asyncpg.Connection[Any]:
        """The connection. Raises CannotStoreError when the server cannot be reached, without trying each time."""
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
            self._trouble = translated(error)
            raise CannotStoreError(str(self._trouble)) from error
        self._pause = _FIRST_PAUSE_SECONDS
        self._trouble = None
        return self._connection

    async def get_within(self, seconds: float) -> asyncpg.Connection[Any]:
        """The same, trying again for so long. Raises CannotStoreError."""
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
        """Whether the connection is of no more use after this error."""
        return self._connection is None or self._connection.is_closed() or isinstance(error, TimeoutError)

    def lose(self) -> None:
        """Let go of the connection at once."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """End the connection in good order."""
        if self._connection is None:
            return
        try:
            await self._connection.close(timeout=_CONNECT_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            self.lose()


async def connect(
    url: str, settings: dict[str, str], *, answer_seconds: float | None = _ANSWER_SECONDS
) -> asyncpg.Connection[Any]:
    """A connection whose commits are on disk when they are answered, unless the settings say otherwise."""
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
    """Where it is, without who may enter it."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"PostgreSQL {place}{parts.path}"


def lost(error: BaseException) -> CannotStoreError:
    """What is said when the connection broke."""
    return CannotStoreError(f"the connection to the database was lost ({error}); try again later")


def is_in_the_way(error: BaseException) -> bool:
    """Whether the transaction stood in another's way, and may do better the next time."""
    return isinstance(error, asyncpg.PostgresError) and error.sqlstate in _IN_THE_WAY


def translated(error: BaseException) -> ServiceError:
    """What the store makes of an error of PostgreSQL's or of the way there."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, asyncpg.UniqueViolationError):
        return UniqueViolationError(str(error))
    if _is_about_the_whole_database(error):
        reason = str(error).partition("\n")[0] or type(error).__name__
        return CannotStoreError(f"the database cannot be used at the moment: {reason}; try again later")
    return StoreError(f"{type(error).__name__}: {error}")


def _is_about_the_whole_database(error: BaseException) -> bool:
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in _UNABLE_CLASSES or state in _UNABLE_STATES
    return isinstance(error, OSError | TimeoutError)
