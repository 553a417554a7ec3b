"""Groups of statements for SQLite: everything that waits is run in one call of the connection's thread."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from service.errors import CannotStoreError, ServiceError, StoreError, UniqueViolationError
from service.store.database import Batch, Parameters, Row, RowStatement, Statement, Update
from service.store.pending import NEW_JOB, Read, Write
from service.store.sqlite.bulk import for_rows, in_runs

_COMMIT_BYTES = 40 << 10
"""What a commit adds to the WAL: one page of the table and of each index, roughly."""
_ROW_BYTES = 3 << 10
"""What each row adds beside its own text: further pages, of which many rows of a commit share most."""

PASSED_OVER = "passed over"
"""What a trigger on a view says of a row that it does not take: such a write has no effect, and gives no rows."""
GROUPED = "-- a group of statements, see GroupingConnection"


class WaitingWrites:
    """Writes on their way to the connection's thread. Both threads use it; what is added meanwhile is added behind."""

    def __init__(self) -> None:
        self._new_jobs: list[Write] = []
        self._others: list[Write] = []
        self.is_rest_due = False
        """Those that are not urgent have waited long enough for company."""

    def __len__(self) -> int:
        return len(self._new_jobs) + len(self._others)

    def add(self, write: Write) -> None:
        (self._new_jobs if write.rank == NEW_JOB else self._others).append(write)

    @property
    def is_urgent(self) -> bool:
        """Whether one of them should not wait."""
        return bool(self._new_jobs) or self.is_rest_due or any(write.is_urgent for write in self._others)

    def take(self, most: int) -> list[Write]:
        """Up to ``most`` of either kind, new jobs first. Alone they are one statement, and somebody waits for each; so
        nothing goes with them that is not urgent.
        """
        taken = self._new_jobs[:most]
        del self._new_jobs[: len(taken)]
        if not taken or self.is_rest_due or any(write.is_urgent for write in self._others):
            # However many new jobs there are, the others get on.
            others = self._others[:most]
            del self._others[: len(others)]
            self.is_rest_due = self.is_rest_due and bool(self._others)
            taken += others
        return taken


class WriteGroup:
    """All writes of one commit; ``run`` happens in the connection's thread.

    It takes what waits only when it begins: until the thread has got Python's lock, more may have come.
    """

    def __init__(self, waiting: WaitingWrites, most: int) -> None:
        self._waiting = waiting
        self._most = most
        self.writes: list[Write] = []
        self.written_bytes = _COMMIT_BYTES

    def take(self) -> None:
        """Take what waits, up to ``most`` of either kind."""
        self.writes = self._waiting.take(self._most)

    def run(self, execute: Callable[..., sqlite3.Cursor]) -> None:
        self.take()
        if not self.writes:
            return
        try:
            self._run_together(execute, self.writes)
        except Exception as error:
            if _is_about_the_whole_database(error) or len(self.writes) == 1:
                for write in self.writes:
                    _fail(write, error)
                return
            for write in self.writes:
                try:
                    self._run_together(execute, [write])
                except Exception as own_error:
                    _fail(write, own_error)

    def _run_together(self, execute: Callable[..., sqlite3.Cursor], writes: list[Write]) -> None:
        # New jobs come before all others; when the last one is one, there is nothing to be told apart.
        are_new_jobs = writes[-1].rank == NEW_JOB
        runs = list(in_runs(writes) if are_new_jobs else _alike(sorted(writes, key=_rank)))
        if len(runs) == 1 and _is_one_statement(runs[0]):
            # It is a transaction by itself.
            _carry_out(execute, runs[0])
        else:
            execute("BEGIN IMMEDIATE")
            try:
                for run in runs:
                    _carry_out(execute, run)
                execute("COMMIT")
            except BaseException:
                # After SQLITE_FULL or SQLITE_IOERR the database may have rolled back by itself.
                with contextlib.suppress(sqlite3.Error):
                    execute("ROLLBACK")
                raise
        self.written_bytes += sum(_written_bytes(statement) for write in writes for statement in write.statements)


def _fail(write: Write, error: Exception) -> None:
    if isinstance(error, sqlite3.IntegrityError) and str(error) == PASSED_OVER:
        write.answers = [[] for _ in write.statements]
    else:
        write.error = translated(error)


def _alike(writes: Iterable[Write]) -> Iterator[Sequence[Write]]:
    """Runs of neighbours of the same statements, the first declared; every other write by itself, in its turn."""
    for _, neighbours in groupby(writes, key=_shape):
        same = list(neighbours)
        if same[0].rank == NEW_JOB or _are_for_rows(same):
            yield from in_runs(same)
        else:
            yield from ([write] for write in same)


_rank = attrgetter("rank")


def _shape(write: Write) -> list[str | RowStatement] | int:
    return write.rank if write.rank == NEW_JOB else [statement.sql for statement in write.statements]


def _are_for_rows(writes: Sequence[Write]) -> bool:
    if any(isinstance(statement, Batch) for write in writes for statement in write.statements):
        return False
    return not isinstance(writes[0].statements[0].sql, str)


def _is_one_statement(writes: Sequence[Write]) -> bool:
    return len(writes[0].statements) == 1 and isinstance(writes[0].statements[0], Statement)


def _carry_out(execute: Callable[..., sqlite3.Cursor], writes: Sequence[Write]) -> None:
    """Carry out writes of the same statements: what is declared for all of them together, a text for each.

    Python gives its lock away several times for every statement, and a thread that wants it back while the event loop
    is busy waits for the switch interval: 64 jobs took 10 ms row by row that take 1 ms so. All first statements go
    before all second ones; what a write looks up in its second must therefore be its own.
    """
    for write in writes:
        write.answers = []
    for index, statement in enumerate(writes[0].statements):
        if isinstance(statement, Batch):
            for run in in_runs(statement.rows):
                execute(*for_rows(statement.sql, run))
            writes[0].answers.append([])
            continue
        all_of_them = (write.statements[index] for write in writes)
        given = [each.parameters for each in all_of_them if isinstance(each, Statement)]
        if isinstance(statement.sql, str):
            answers = [execute(statement.sql, parameters).fetchall() for parameters in given]
        else:
            execute(*for_rows(statement.sql, given))
            answers = _given_back(statement.sql, given)
        for write, answer in zip(writes, answers, strict=True):
            write.answers.append(answer)


def _given_back(statement: RowStatement, rows: Sequence[Parameters]) -> list[list[Row]]:
    """What a declared statement gives back for each row. The database is not asked: each row of it would be a step."""
    if isinstance(statement, Update) or not statement.gives:
        return [[] for _ in rows]
    place = statement.columns.index(statement.gives)
    return [[(row[place] if isinstance(row, tuple) else row[statement.gives],)] for row in rows]


def _written_bytes(statement: Statement | Batch) -> int:
    """Of the texts only those that may be long, what was asked and what was answered: the last of their rows."""
    if isinstance(statement, Batch):
        return _ROW_BYTES * len(statement.rows)
    row = statement.parameters
    last = row[-1] if isinstance(row, tuple) else [None, *row.values()][-1]
    return _ROW_BYTES + (len(last) if isinstance(last, str) else 0)


class ReadGroup:
    """All SELECTs that waited for one connection; ``run`` happens in its thread."""

    def __init__(self, reads: list[Read]) -> None:
        self._reads = reads

    def run(self, execute: Callable[..., sqlite3.Cursor]) -> None:
        for read in self._reads:
            try:
                read.rows = execute(read.sql, read.parameters).fetchall()
            except Exception as error:
                read.error = translated(error)


class GroupingConnection(sqlite3.Connection):
    """A connection that can run a whole group of statements in one call.

    aiosqlite makes one round trip to its thread for each statement; a group costs one for all (measured: BEGIN, two
    statements and COMMIT one by one took four times as long as in one call). sqlite3 offers ``factory`` for this, and
    aiosqlite hands it on.
    """

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql is GROUPED:
            parameters.run(super().execute)
            # Nothing that could be fetched.
            return self.cursor()
        return super().execute(sql, parameters)


_nothing: dict[None, None] = {}


def register_none() -> None:
    """Have sqlite3 take None as quickly as an integer; this holds for the whole process.

    For each None it asks whether there is an adapter, and makes an error of each no: that takes ten times as long as an
    integer, with Python's lock held. An adapter that is registered is found before that.
    """
    sqlite3.register_adapter(type(None), _nothing.get)


_WHOLE_DATABASE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_NOMEM,
    }
)


def _is_about_the_whole_database(error: BaseException) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in _WHOLE_DATABASE


def translated(error: BaseException) -> ServiceError:
    """What the store makes of an error of SQLite's."""
    if isinstance(error, ServiceError):
        return error
    if _is_about_the_whole_database(error):
        return CannotStoreError(f"the database takes no writes: {error}; nothing was accepted, try again later")
    if isinstance(error, sqlite3.IntegrityError) and "UNIQUE" in str(error):
        return UniqueViolationError(str(error))
    return StoreError(f"{type(error).__name__}: {error}")
