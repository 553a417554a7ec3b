"""Erasing what was deleted from SQLite's files, and the length that the write-ahead log has from the start.

With ``secure_delete`` the pages of what is deleted are overwritten with zeros, but the log still holds them as they
were. A checkpoint that truncates the log ends that. All deletions that wait share one, and there is at most one a
second: after it the next commits are slow, until the log has its length again. What SQLite leaves in its pages is
overwritten then, too (page_gaps.py): in a large file in several turns, between which others write.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import aiosqlite

from service.store.sqlite.groups import GROUPED, GroupingConnection
from service.store.sqlite.page_gaps import DatabaseFile

_log = logging.getLogger(__name__)

_PREPARED_BYTES = 32 << 20
"""How large the write-ahead log is from the start."""
_ZEROS_BYTES = 1 << 20
_PAUSE_SECONDS = 1.0
_CALM_PAUSES = 5
"""So long nobody must have asked for it before the log is made long again."""
_TRIES = 20
_TRY_AGAIN_SECONDS = 0.1
_TURN_SECONDS = 0.005
"""So long pages are cleared at a time, while nothing else is written."""
_BUSY_MS = 50
"""So long a checkpoint waits for those who read what was before it. Our own reads are over by then, mostly."""


class Eraser:
    """Truncates the log for those who wait for it. The writing connection runs everything between two commits."""

    def __init__(self, writer: aiosqlite.Connection, path: Path) -> None:
        database = path.resolve()
        self._writer = writer
        self._log_path = database.with_name(f"{database.name}-wal")
        self._file = DatabaseFile(database)
        self._waiting: list[asyncio.Future[bool]] = []
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False

    async def begin(self) -> None:
        """Give the log its length. A killed process may have left in the files what was deleted, and an earlier version
        what was moved.
        """
        is_erased = await self._run(self._emptied) and self._file.is_clear
        await self._lengthened()
        if not is_erased:
            self._running = asyncio.create_task(self._erase())

    def erased(self) -> asyncio.Future[bool]:
        """Done when nothing is left in the files of what was deleted before; False where another program reads the
        database and has not let go of it in time. It goes on, also when nobody waits for it, until it is done.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._is_closed:
            self._answer(is_erased=False)
        elif self._running is None:
            self._running = asyncio.create_task(self._erase())
        return future

    async def close(self) -> None:
        """Nobody is waited for any more: the log is deleted with its last connection."""
        self._is_closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
        self._answer(is_erased=False)

    def let_go(self) -> None:
        """The connections are closed."""
        self._file.close()

    async def _erase(self) -> None:
        loop, is_erased = asyncio.get_running_loop(), False
        while self._waiting or not is_erased:
            asked, begun = len(self._waiting), loop.time()
            is_erased = await self._try_again_and_again()
            self._answer(asked, is_erased=is_erased)
            if not is_erased:
                _log.warning("the write-ahead log cannot be emptied: another program reads the database file")
            await self._rest(loop.time() - begun, is_over=is_erased)
        await self._lengthened()
        self._running = asyncio.create_task(self._erase()) if self._waiting else None

    async def _rest(self, worked_seconds: float, *, is_over: bool) -> None:
        """Wait until the log may be emptied again: longer where nobody asks for it, or it has taken long."""
        await asyncio.sleep(max(_PAUSE_SECONDS, worked_seconds))
        for _ in range(1, _CALM_PAUSES):
            if self._waiting or not is_over:
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _try_again_and_again(self) -> bool:
        loop = asyncio.get_running_loop()
        tries = 0
        self._file.begin_anew()
        while tries < _TRIES:
            begun = loop.time()
            if not await self._run(self._emptied):
                tries += 1
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
            elif self._file.is_clear:
                return True
            else:
                # It rests as long as it has worked: half of the time at least is everybody else's.
                tries = 0
                await asyncio.sleep(loop.time() - begun)
        return False

    def _emptied(self, execute: Callable[..., sqlite3.Cursor]) -> bool:
        """Empty the log, and clear some of the pages; whether that could be done."""
        return _truncated(execute) and self._cleared(execute)

    def _cleared(self, execute: Callable[..., sqlite3.Cursor]) -> bool:
        """Clear the next pages; whether nobody else has written since the log was emptied."""
        # The connection writes pages as it has them in memory.
        execute("PRAGMA shrink_memory")
        # While this has the right to write, no other program appends to the log: an empty one stays so, and nobody has
        # anything to copy from it into the file.
        execute("BEGIN IMMEDIATE")
        try:
            if self._log_path.stat().st_size:
                return False
            end = perf_counter() + _TURN_SECONDS
            self._file.clear(lambda: perf_counter() > end)
        finally:
            execute("ROLLBACK")
        return True

    async def _lengthened(self) -> None:
        await self._run(lambda _execute: _lengthen(self._log_path))

    async def _run(self, work: Callable[[Callable[..., sqlite3.Cursor]], bool]) -> bool:
        alone = _Alone(work)
        try:
            await self._writer.execute_fetchall(GROUPED, alone)
        except Exception as error:
            # Whatever it is, those who wait are to be answered.
            _log.warning("the write-ahead log could not be emptied: %s", error)
        return alone.is_done

    def _answer(self, count: int | None = None, *, is_erased: bool) -> None:
        answered = self._waiting[:count]
        del self._waiting[: len(answered)]
        for future in answered:
            if not future.done():
                future.set_result(is_erased)


class _Alone:
    """What the connection's thread does between two groups of writes."""

    def __init__(self, work: Callable[[Callable[..., sqlite3.Cursor]], bool]) -> None:
        self._work = work
        self.is_done = False

    def run(self, _connection: GroupingConnection, execute: Callable[..., sqlite3.Cursor]) -> None:
        self.is_done = self._work(execute)


def _truncated(execute: Callable[..., sqlite3.Cursor]) -> bool:
    [(patience_ms,)] = execute("PRAGMA busy_timeout").fetchall()
    execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    try:
        [(is_busy, *_)] = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        execute(f"PRAGMA busy_timeout = {patience_ms}")
    return not is_busy


def _lengthen(log: Path) -> bool:
    """Lengthen the log, or leave it as it was where the disk has no room: this is only for speed."""
    with contextlib.suppress(OSError):
        length = log.stat().st_size
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        try:
            for _ in range(length, _PREPARED_BYTES, _ZEROS_BYTES):
                os.write(file, bytes(_ZEROS_BYTES))
            os.fdatasync(file)
        except OSError:
            os.ftruncate(file, length)
        finally:
            os.close(file)
    return True
