"""SQLite: one connection writes, in groups; two connections read.

With WAL and ``synchronous=FULL``, what is acknowledged is on disk. The writer takes all writes that wait into one
transaction, in one call of its thread, and answers them after the commit. The next group gathers while the disk works.
The writing connection also does all checkpoints: SQLite before 3.51.3 can corrupt a WAL when two connections write and
checkpoint at once (https://sqlite.org/wal.html, "the WAL-reset bug").
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import aiosqlite

from service.errors import CannotStoreError, DatabaseUnusableError
from service.metrics.values import COMMIT_BOUNDS, Histogram
from service.store.database import Batch, LongText, Row, Settle, Statement, TextPiece, Written
from service.store.migrations import MIGRATIONS, NEWEST
from service.store.pending import PieceRead, Read, Write
from service.store.sqlite.erasing import Eraser
from service.store.sqlite.file_size import given_back, used_bytes
from service.store.sqlite.groups import (
    GROUPED,
    PASSED_OVER,
    GroupingConnection,
    ReadGroup,
    WaitingWrites,
    WriteGroup,
    register_none,
    translated,
)
from service.store.sqlite.private_files import hide_from_others, take_lock

_log = logging.getLogger(__name__)

_OLDEST_SQLITE = (3, 37, 0)
"""It brought STRICT tables."""
_BUSY_TIMEOUT_MS = 5_000
_WAITING_WRITES = 20_000
"""When so many writes wait for the disk, new ones are refused."""
_GROUP = 512
_SOON_SECONDS = 0.005
"""How long a write that is not urgent may wait for others to share its commit."""
_IDLE_CHECKPOINT_BYTES = 1 << 20
_IDLE_SECONDS = 0.2
_LARGE_BYTES = 24 << 20
_MOMENT_SECONDS = 0.01
"""The idle time before a checkpoint once _LARGE_BYTES wait for it."""
_FORCED_CHECKPOINT_BYTES = 256 << 20
_STEPS = 20_000
"""Steps of SQLite's machine between two looks whether anybody still waits for a scan: about a millisecond."""

_WORDS = {
    "growing_key": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "integer": "INTEGER",
    "real": "REAL",
    "strict": " STRICT",
    "model_of_runner": "substr(runner, 1, instr(runner || ' ', ' ') - 1)",
    "instead_of_insert": "CREATE TRIGGER new_jobs_insert INSTEAD OF INSERT ON new_jobs BEGIN",
    "seq_given": "seq, ",
    "new_seq_given": "NEW.seq, ",
    "seq_taken": "",
    "instead_of_insert_end": "END",
    "instead_of_outcome": "CREATE TRIGGER outcomes_insert INSTEAD OF INSERT ON outcomes BEGIN",
    "unless_changed": f"SELECT RAISE(ABORT, '{PASSED_OVER}') WHERE changes() = 0;",
    "instead_of_outcome_end": "END",
}


class SqliteDatabase:
    """A database in one file. :class:`service.store.database.Database` says what the methods promise."""

    claim_lock = ""
    share_lock = ""
    text_size = "length(CAST({column} AS BLOB))"
    present_ms = "(CAST(strftime('%s', 'now') AS INTEGER) * 1000)"
    contains_text = "instr(CAST(lower(prompt) AS BLOB), CAST(lower(:text) AS BLOB)) > 0"
    is_shared = False
    keeps_order = True

    def __init__(
        self,
        path: Path,
        lock: IO[str],
        writer: aiosqlite.Connection,
        points: aiosqlite.Connection,
        scans: aiosqlite.Connection,
        last_number: int,
    ) -> None:
        self.commit_seconds = Histogram(COMMIT_BOUNDS)
        self._loop = asyncio.get_running_loop()
        self._last_number = last_number
        self._lock = lock
        self._writer = writer
        self._points = _ReadLane(points)
        self._scans = _ReadLane(scans)
        self._waiting = WaitingWrites()
        self._flushing: asyncio.Task[None] | None = None
        self._soon: asyncio.TimerHandle | None = None
        self._unchecked_bytes = 0
        self._idle: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._eraser = Eraser(writer, path)

    @classmethod
    async def open(cls, path: Path) -> SqliteDatabase:
        """Open or create the file, and apply the migrations that it lacks.

        Raises DatabaseUnusableError when another process holds the file, when its schema is newer than the program, and
        when its disk cannot hold a WAL.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise DatabaseUnusableError(
                f"SQLite {sqlite3.sqlite_version} is too old: Corral needs 3.37 or newer; "
                "use a newer Python, or DATABASE_URL for PostgreSQL"
            )
        register_none()
        lock = take_lock(path)
        async with contextlib.AsyncExitStack() as opened:
            opened.callback(lock.close)
            try:
                writer = await opened.enter_async_context(_connect(path))
                await _prepare(writer, path)
                hide_from_others(path)
                last_number = await _last_number(writer)
                points = await opened.enter_async_context(_connect(path))
                scans = await opened.enter_async_context(_connect(path))
                for reader in (points, scans):
                    await reader.execute_fetchall("PRAGMA query_only = ON")
            except sqlite3.Error as error:
                raise DatabaseUnusableError(
                    f"database {path}: {error}; check the file, its folder's permissions and the disk"
                ) from error
            opened.pop_all()
        database = cls(path, lock, writer, points, scans, last_number)
        await database._scans.end_with_those_who_wait()
        return database

    async def prepare(self) -> None:
        """Lengthen the write-ahead log with zeros. Readers of it stop at zeros
        (https://sqlite.org/fileformat2.html#walformat).

        A commit that makes the file longer takes twice as long as one that does not, since the new length must reach
        the disk, too (measured on ext4: 430 and 220 µs for a new job).
        """
        await self._eraser.begin()

    def next_number(self) -> int:
        """Numbers are given here, since no other process makes jobs. A refused job's number stays unused."""
        self._last_number += 1
        return self._last_number

    def write(self, *statements: Statement | Batch, is_urgent: bool = True, settle: Settle | None = None) -> Written:
        future: Written = self._loop.create_future()
        write = Write(statements, future, is_urgent=is_urgent, settle=settle)
        if self._is_closed or len(self._waiting) >= _WAITING_WRITES:
            write.error = CannotStoreError("the database cannot keep up with the writes; try again")
            self._loop.call_soon(write.settle)
            return future
        self._waiting.add(write)
        if not is_urgent:
            if self._soon is None:
                self._soon = self._loop.call_later(_SOON_SECONDS, self._flush_rest)
        elif self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return future

    def read(self, sql: str, parameters: Mapping[str, Any], *, is_scan: bool = False) -> asyncio.Future[list[Row]]:
        return (self._scans if is_scan else self._points).read(sql, parameters)

    async def piece(self, text: LongText, start: int, size: int) -> TextPiece | None:
        rows = await self._points.piece(text, start, size)
        return TextPiece(*rows[0]) if rows else None

    async def used_bytes(self) -> int:
        """The pages that are in use; the log beside the file does not count."""
        return await used_bytes(self)

    async def give_back(self, above_bytes: int) -> bool:
        return await given_back(self, above_bytes)

    def erase(self) -> asyncio.Future[bool]:
        return self._eraser.erased()

    def notify(self, payload: str) -> None:
        """Nobody else shares the file."""

    def listen(self, receive: Callable[[str], None]) -> None:
        """Nobody else shares the file."""

    async def close(self) -> None:
        self._is_closed = True
        await self._eraser.close()
        self._flush_rest()
        if self._flushing is not None:
            await self._flushing
        if self._idle is not None:
            self._idle.cancel()
        await self._points.close()
        await self._scans.close()
        await self._writer.close()
        self._eraser.let_go()
        self._lock.close()

    def _flush_rest(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._waiting.is_rest_due = bool(self._waiting)
        if self._waiting and self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        while self._waiting and (self._is_closed or self._waiting.is_urgent):
            group = WriteGroup(self._waiting, _GROUP)
            try:
                begun = perf_counter()
                await self._writer.execute_fetchall(GROUPED, group)
                self.commit_seconds.observe(perf_counter() - begun)
            except Exception as error:
                if not group.writes:
                    group.take()
                for write in group.writes:
                    write.error = write.error or translated(error)
            for write in group.writes:
                write.settle()
            self._unchecked_bytes += group.written_bytes
            if self._unchecked_bytes > _FORCED_CHECKPOINT_BYTES:
                await self._checkpoint()
        self._flushing = None
        if self._waiting and self._soon is None:
            self._soon = self._loop.call_later(_SOON_SECONDS, self._flush_rest)
        if self._unchecked_bytes > _IDLE_CHECKPOINT_BYTES and not self._is_closed:
            if self._idle is not None:
                self._idle.cancel()
            seconds = _IDLE_SECONDS if self._unchecked_bytes < _LARGE_BYTES else _MOMENT_SECONDS
            self._idle = self._loop.call_later(seconds, self._begin_idle_checkpoint)

    def _begin_idle_checkpoint(self) -> None:
        self._idle = None
        if self._flushing is None and not self._is_closed:
            self._flushing = asyncio.create_task(self._checkpoint_then_flush())

    async def _checkpoint_then_flush(self) -> None:
        await self._checkpoint()
        await self._flush()

    async def _checkpoint(self) -> None:
        """PASSIVE takes no lock for which it would have to wait."""
        self._unchecked_bytes = 0
        try:
            await self._writer.execute_fetchall("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            _log.warning("the write-ahead log could not be moved into the database: %s", error)


class _ReadLane:
    """One reading connection. All reads that wait for it are run in one call of its thread."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._waiting: list[Read] = []
        self._group = ReadGroup([])
        self._running: asyncio.Task[None] | None = None
        self._ends_with_those_who_wait = False

    async def end_with_those_who_wait(self) -> None:
        """From now on a SELECT ends when nobody waits for it any more."""
        self._ends_with_those_who_wait = True
        await self._connection.set_progress_handler(lambda: self._group.is_forsaken(), _STEPS)

    def read(self, sql: str, parameters: Mapping[str, Any]) -> asyncio.Future[list[Row]]:
        future: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()
        read = Read(sql, parameters, future)
        if self._ends_with_those_who_wait:
            # The steps alone come too seldom: there are a thousand long texts between two looks.
            future.add_done_callback(lambda _future: self._group.end(read))
        return self._begin(read)

    def piece(self, text: LongText, start: int, size: int) -> asyncio.Future[list[Row]]:
        future: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()
        return self._begin(PieceRead(text, start, size, future))

    def _begin(self, read: Read) -> asyncio.Future[list[Row]]:
        self._waiting.append(read)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return read.future

    async def close(self) -> None:
        if self._running is not None:
            await self._running
        await self._connection.close()

    async def _run(self) -> None:
        while self._waiting:
            reads, self._waiting = self._waiting, []
            self._group = ReadGroup(reads)
            try:
                await self._connection.execute_fetchall(GROUPED, self._group)
            except Exception as error:
                for read in reads:
                    read.error = read.error or translated(error)
            for read in reads:
                read.settle()
        self._running = None


def _connect(path: Path) -> aiosqlite.Connection:
    return aiosqlite.connect(path, isolation_level=None, factory=GroupingConnection, cached_statements=256)


async def _prepare(writer: aiosqlite.Connection, path: Path) -> None:
    for pragma in (
        f"busy_timeout = {_BUSY_TIMEOUT_MS}",
        "auto_vacuum = INCREMENTAL",
        "foreign_keys = ON",
        "cache_size = -16000",
        "temp_store = MEMORY",
        # What is deleted is overwritten with zeros. The log has it still, see erasing.py.
        "secure_delete = ON",
    ):
        await writer.execute_fetchall(f"PRAGMA {pragma}")
    mode = [str(row[0]) for row in await writer.execute_fetchall("PRAGMA journal_mode = WAL")]
    if mode != ["wal"]:
        raise DatabaseUnusableError(
            f"database {path}: its file system cannot hold a write-ahead log (journal mode {mode[0]}); use a local disk"
        )
    await writer.execute_fetchall("PRAGMA synchronous = FULL")
    await writer.execute_fetchall("PRAGMA wal_autocheckpoint = 0")
    await _migrate(writer, path)


async def _last_number(writer: aiosqlite.Connection) -> int:
    """The largest number that any job ever had, deleted ones included."""
    rows = await writer.execute_fetchall(
        "SELECT max(coalesce((SELECT max(seq) FROM jobs), 0), "
        "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), 0))"
    )
    return next(int(row[0]) for row in rows)


async def _migrate(writer: aiosqlite.Connection, path: Path) -> None:
    await writer.execute_fetchall(
        "CREATE TABLE IF NOT EXISTS schema_migrations (number INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT"
    )
    rows = await writer.execute_fetchall("SELECT coalesce(max(number), 0) FROM schema_migrations")
    present = next(int(row[0]) for row in rows)
    if present > NEWEST:
        raise DatabaseUnusableError(
            f"database {path}: written by a newer Corral (schema {present}, this one knows {NEWEST}); "
            "upgrade Corral or use another database"
        )
    for migration in MIGRATIONS[present:]:
        await writer.execute_fetchall("BEGIN IMMEDIATE")
        for statement in migration.statements:
            await writer.execute_fetchall(statement.format_map(_WORDS))
        await writer.execute_fetchall(
            "INSERT INTO schema_migrations VALUES (?, CAST(strftime('%s', 'now') AS INTEGER) * 1000)",
            [migration.number],
        )
        await writer.execute_fetchall("COMMIT")
