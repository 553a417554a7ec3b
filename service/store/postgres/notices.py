"""Tells the other processes that share a PostgreSQL database, and hears from them: LISTEN and NOTIFY.

A notice is a hint; the rows are the truth. Payloads that come while a notice is under way are sent together in the
next. A process that may have missed a notice is told so by an empty payload.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any

import asyncpg

from service.errors import CannotStoreError
from service.store.postgres.connections import Link

_CHANNEL = "corral"
_NOTICE_BYTES = 7_900
"""PostgreSQL refuses 8,000 and more."""
_MOST_WAITING = 2_000
"""When more payloads wait than this, they are dropped and the others are told to look again."""
_PING_SECONDS = 10.0
_SHORTEST_PAUSE_SECONDS = 0.1


class Notices:
    """One connection that tells the other processes and listens to them. It is made when it is first used."""

    def __init__(self, url: str) -> None:
        # A notice need not be on disk, so its transaction does not wait for the disk.
        self._link = Link(url, synchronous_commit="off")
        self._name = os.urandom(8).hex()
        self._schema = ""
        self._receive: Callable[[str], None] = lambda payload: None
        self._waiting: list[str] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    def send(self, payload: str) -> None:
        """Tell the other processes, soon."""
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting = [""]
        self._waiting.append(payload)
        self._wake.set()
        self._begin()

    def listen(self, receive: Callable[[str], None]) -> None:
        """Have ``receive`` called with each payload of the other processes."""
        self._receive = receive
        self._begin()

    async def close(self) -> None:
        """Send the payloads that still wait, and stop."""
        self._is_closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._link.close()

    def _begin(self) -> None:
        if self._task is None and not self._is_closing:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._is_closing or self._waiting:
            try:
                connection = await self._link.get()
                await self._begin_listening(connection)
                # Notices from before that were missed.
                self._receive("")
                await self._talk(connection)
            except (CannotStoreError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                self._link.lose()
                if self._is_closing:
                    return
                await asyncio.sleep(max(_SHORTEST_PAUSE_SECONDS, self._link.pause_seconds))

    async def _begin_listening(self, connection: asyncpg.Connection[Any]) -> None:
        self._schema = await connection.fetchval("SELECT current_schema()")
        await connection.add_listener(_CHANNEL, self._hear)
        connection.add_termination_listener(lambda _: self._wake.set())

    async def _talk(self, connection: asyncpg.Connection[Any]) -> None:
        """Send the payloads that wait, until the connection is lost or closed here."""
        while not connection.is_closed():
            self._wake.clear()
            if self._waiting:
                notices = self._take_notices()
                try:
                    await connection.fetch(
                        "SELECT pg_notify($1, notice) FROM unnest($2::text[]) AS notice", _CHANNEL, notices
                    )
                except BaseException:
                    # It is not known whether the others have got them.
                    self._waiting.insert(0, "")
                    raise
                continue
            if self._is_closing:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PING_SECONDS):
                    await self._wake.wait()
                    continue
            await connection.fetchval("SELECT 1")

    def _take_notices(self) -> list[str]:
        head = f"{self._schema} {self._name}"
        notices: list[str] = []
        lines: list[str] = []
        size = _NOTICE_BYTES
        for payload in self._waiting:
            if len(payload.encode()) > _NOTICE_BYTES // 2 or "\n" in payload:
                payload = ""
            size += len(payload.encode()) + 1
            if size > _NOTICE_BYTES:
                lines = []
                notices.append("")
                size = len(head.encode()) + 1 + len(payload.encode())
            lines.append(payload)
            notices[-1] = "\n".join((head, *lines))
        self._waiting = []
        return notices

    def _hear(self, _connection: object, _process: int, _channel: str, notice: object) -> None:
        head, _, payloads = str(notice).partition("\n")
        schema, _, name = head.rpartition(" ")
        if schema != self._schema or name == self._name:
            return
        for payload in payloads.split("\n"):
            self._receive(payload)
