"""Erasing what was deleted from SQLite's files, and the length that the write-ahead log has from the start.

With ``secure_delete`` the pages of what is deleted are overwritten with zeros, but the log still holds them as they
were. A checkpoint that truncates the log ends that. All deletions that wait share one, and there is at most one a
second: after it the next commits are slow, until the log has its length again. What SQLite leaves between the entries
of its pages is overwritten then, too (page_gaps.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import aiosqlite

from service.store.database import JobPlace
from service.store.sqlite.groups import GROUPED, GroupingConnection
from service.store.sqlite.page_gaps import DatabaseFile, merged

_log = logging.getLogger(__name__)

_PREPARED_BYTES = 32 << 20
"""How large the write-ahead log is from the start."""
_ZEROS_BYTES = 1 << 20
_PAUSE_SECONDS = 1.0
_CALM_PAUSES = 5
"""So long nobody must have asked for it before the log is made long again."""
_TRIES = 20
_TRY_AGAIN_SECONDS = 0.1
_REACH = 100
"""Rows on each side of one that is gone, whose pages may have had it before."""
_JOBS_AT_ONCE = 100
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
        self._gone: list[JobPlace] = []
        """Jobs around whose places the pages are to be looked through."""
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False

    async def begin(self) -> None:
        """Give the log its length. A killed process may have left in it what was deleted."""
        await self._run(_truncated)
        await self._lengthened()

    async def erased(self, gone: Sequence[JobPlace]) -> bool:
        """Wait until nothing is left in the files of what was deleted before; False where another program reads the
        database and has not let go of it in time. It is tried again until it is done.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._gone += gone
        if self._is_closed:
            self._answer(is_erased=False)
        elif self._running is None:
            self._running = asyncio.create_task(self._erase())
        return await future

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
        is_erased = False
        while self._waiting or not is_erased:
            asked = len(self._waiting)
            is_erased = await self._try_again_and_again()
            self._answer(asked, is_erased=is_erased)
            if not is_erased:
                _log.warning("the write-ahead log cannot be emptied: another program reads the database file")
            await self._rest()
        await self._lengthened()
        self._running = asyncio.create_task(self._erase()) if self._waiting else None

    async def _rest(self) -> None:
        """Wait until the log may be emptied again; longer where nobody asks for it."""
        for _ in range(_CALM_PAUSES):
            await asyncio.sleep(_PAUSE_SECONDS)
            if self._waiting or self._gone:
                return

    async def _try_again_and_again(self) -> bool:
        tries = 0
        while tries < _TRIES:
            if await self._run(self._emptied):
                if not self._gone:
                    return True
                continue
            tries += 1
            await asyncio.sleep(_TRY_AGAIN_SECONDS)
        return False

    def _emptied(self, execute: Callable[..., sqlite3.Cursor]) -> bool:
        """Empty the log, and then the gaps around some of the jobs; whether that could be done."""
        if not _truncated(execute):
            return False
        some = self._gone[:_JOBS_AT_ONCE]
        if some and not self._cleared(execute, some):
            return False
        del self._gone[: len(some)]
        return True

    def _cleared(self, execute: Callable[..., sqlite3.Cursor], gone: Sequence[JobPlace]) -> bool:
        """Clear the gaps around these jobs; whether nobody else has written since the log was emptied."""
        # The connection writes pages as it has them in memory.
        execute("PRAGMA shrink_memory")
        # While this has the right to write, no other program appends to the log: an empty one stays so, and nobody has
        # anything to copy from it into the file.
        execute("BEGIN IMMEDIATE")
        try:
            if self._log_path.stat().st_size:
                return False
            for root, ranges in _places(execute, gone):
                self._file.clear_gaps(self._file.leaves(root, ranges))
        finally:
            execute("ROLLBACK")
        return True

    async def _lengthened(self) -> None:
        await self._run(lambda _execute: _lengthen(self._log_path))

    async def _run(self, work: Callable[[Callable[..., sqlite3.Cursor]], bool]) -> bool:
        alone = _Alone(work)
        try:
            await self._writer.execute_fetchall(GROUPED, alone)
        except (sqlite3.Error, OSError, ValueError) as error:
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


def _places(
    execute: Callable[..., sqlite3.Cursor], gone: Sequence[JobPlace]
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """The first pages of the tables that hold text, and where the rows of these jobs stood in each."""
    roots = dict(execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'").fetchall())
    seqs = [job.seq for job in gone]
    for table in ("jobs", "bodies", "results"):
        yield roots[table], merged(_around(execute, table, seqs))
    for table in ("idempotency", "reply_pieces"):
        # Ids are in the order of time, and so are the numbers of the rows.
        before = f"SELECT rowid FROM {table} WHERE job_id <= ? ORDER BY job_id DESC LIMIT 1"
        found = [execute(before, (job.id,)).fetchone() for job in gone]
        yield roots[table], merged(_around(execute, table, [row[0] if row else 0 for row in found]))


def _around(execute: Callable[..., sqlite3.Cursor], table: str, numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """For each number those of the rows that are the next to it on both sides."""
    below = f"SELECT min(n) FROM (SELECT rowid AS n FROM {table} WHERE rowid < ? ORDER BY rowid DESC LIMIT {_REACH})"
    above = f"SELECT max(n) FROM (SELECT rowid AS n FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT {_REACH})"
    end = -1
    for number in sorted(numbers):
        if number > end:
            [(low,)], [(high,)] = execute(below, (number,)).fetchall(), execute(above, (number,)).fetchall()
            end = number if high is None else high
            yield number if low is None else low, end


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
