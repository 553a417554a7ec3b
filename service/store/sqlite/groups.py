"""Groups of writes, and of reads, for SQLite: a group is run in one call of the connection's thread."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from service.errors import CannotStoreError, ServiceError, StoreError, UniqueViolationError
from service.store.database import Batch, Parameters, Row, RowStatement, Statement, Update
from service.store.pending import NEW_JOB, PieceRead, Read, Write
from service.store.sqlite.bulk import for_rows, in_runs

_COMMIT_BYTES = 40 << 10
"""What a commit adds to the WAL: roughly one page of the table and of each index."""
_ROW_BYTES = 3 << 10
"""What each row adds beside its own text. The rows of a commit share most of their further pages."""
_LARGE_BYTES = 1 << 20
_MOST_TOGETHER_BYTES = 8 << 20

PASSED_OVER = "passed over"
"""A trigger on a view raises this for a row that it does not take. Such a write has no effect and gives no rows."""
GROUPED = "-- a group of statements, see GroupingConnection"


class WaitingWrites:
    """Writes on their way to the connection's thread. Both threads use it: one adds at the end, the other takes from
    the beginning.
    """

    def __init__(self) -> None:
        self._new_jobs: list[Write] = []
        self._others: list[Write] = []
        self.is_rest_due = False
        """Whether the writes that are not urgent have waited long enough."""

    def __len__(self) -> int:
        return len(self._new_jobs) + len(self._others)

    def add(self, write: Write) -> None:
        (self._new_jobs if write.rank == NEW_JOB else self._others).append(write)

    @property
    def is_urgent(self) -> bool:
        """Whether one of these writes should not wait."""
        return bool(self._new_jobs) or self.is_rest_due or any(write.is_urgent for write in self._others)

    def take(self, most: int) -> list[Write]:
        """Up to ``most`` of either kind, new jobs first, and of these no more than memory has room for. New jobs alone
        are one statement, and a caller waits for each; so other writes join them only when one of the others is urgent,
        or due.
        """
        taken = self._new_jobs[: _fitting(self._new_jobs, most)]
        del self._new_jobs[: len(taken)]
        if not taken or self.is_rest_due or any(write.is_urgent for write in self._others):
            # The other writes have a share of their own, however many new jobs there are.
            others = self._others[:most]
            del self._others[: len(others)]
            self.is_rest_due = self.is_rest_due and bool(self._others)
            taken += others
        return taken


class WriteGroup:
    """All writes of one commit. ``run`` is called in the connection's thread.

    It takes the writes only when it begins, since more may come until the thread has got Python's lock.
    """

    def __init__(self, waiting: WaitingWrites, most: int) -> None:
        self._waiting = waiting
        self._most = most
        self.writes: list[Write] = []
        self.written_bytes = _COMMIT_BYTES

    def take(self) -> None:
        """Take the writes that wait, up to ``most`` of either kind."""
        self.writes = self._waiting.take(self._most)

    def run(self, _connection: GroupingConnection, execute: Callable[..., sqlite3.Cursor]) -> None:
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
        # New jobs come before all others, so when the last write is a new job, all are.
        are_new_jobs = writes[-1].rank == NEW_JOB
        runs = list(in_runs(writes) if are_new_jobs else _alike(sorted(writes, key=_rank)))
        if len(runs) == 1 and _is_one_statement(runs[0]):
            # One statement is a transaction by itself.
            self.written_bytes += _carry_out(execute, runs[0])
        else:
            written_bytes = 0
            execute("BEGIN IMMEDIATE")
            try:
                for run in runs:
                    written_bytes += _carry_out(execute, run)
                execute("COMMIT")
            except BaseException:
                # After SQLITE_FULL or SQLITE_IOERR the database may have rolled back by itself.
                with contextlib.suppress(sqlite3.Error):
                    execute("ROLLBACK")
                raise
            self.written_bytes += written_bytes


def _fitting(writes: Sequence[Write], most: int) -> int:
    """How many of the first ``most`` go together: SQLite holds up to three copies of all texts of a statement."""
    size = 0
    for count, write in enumerate(writes[:most], 1):
        size += _written_bytes(write.statements[0])
        if size > _MOST_TOGETHER_BYTES:
            return count
    return most


def _fail(write: Write, error: Exception) -> None:
    if isinstance(error, sqlite3.IntegrityError) and str(error) == PASSED_OVER:
        write.answers = [[] for _ in write.statements]
    else:
        write.error = translated(error)


def _alike(writes: Iterable[Write]) -> Iterator[Sequence[Write]]:
    """Runs of neighbours with the same statements, where the first of these is declared. Any other write is a run by
    itself.
    """
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


def _carry_out(execute: Callable[..., sqlite3.Cursor], writes: Sequence[Write]) -> int:
    """Carry out writes with the same statements. A declared statement is carried out once for all of them, a text once
    for each. Gives an estimate of the bytes that were written.

    Each statement gives Python's lock away several times, and to get it back from a busy event loop takes the switch
    interval: 64 jobs take 1 ms together, and took 10 ms row by row. All first statements are carried out before all
    second ones. The second statement of a write must therefore look up only what is this write's own.
    """
    for write in writes:
        write.answers = []
    written_bytes = sum(_written_bytes(statement) for write in writes for statement in write.statements)
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
            text, values = for_rows(statement.sql, given)
            execute(text, values)
            if written_bytes > _LARGE_BYTES:
                # A statement that is kept for its next use keeps what was bound to it, a hundred bodies of requests at
                # worst. With NULLs it does nothing, and holds nothing.
                execute(text, [None] * len(values))
            answers = _given_back(statement.sql, given)
        for write, answer in zip(writes, answers, strict=True):
            write.answers.append(answer)
    return written_bytes


def _given_back(statement: RowStatement, rows: Sequence[Parameters]) -> list[list[Row]]:
    """What a declared statement gives back for each row. It is taken from the parameters, since each row that the
    database gives costs another step.
    """
    if isinstance(statement, Update) or not statement.gives:
        return [[] for _ in rows]
    place = statement.columns.index(statement.gives)
    return [[(row[place] if isinstance(row, tuple) else row[statement.gives],)] for row in rows]


def _written_bytes(statement: Statement | Batch) -> int:
    """An estimate. Of a row's texts only the last counts: that is where a long one stands, a request or an output."""
    if isinstance(statement, Batch):
        return _ROW_BYTES * len(statement.rows)
    row = statement.parameters
    last = [None, *(row if isinstance(row, tuple) else row.values())][-1]
    return _ROW_BYTES + (len(last) if isinstance(last, str) else 0)


class ReadGroup:
    """All SELECTs that waited for one connection. ``run`` is called in its thread."""

    def __init__(self, reads: list[Read]) -> None:
        self._reads = reads
        self._present: Read | None = None
        """The one that is read now."""
        self._turn = threading.Lock()
        """Held while that changes, and while it is interrupted, so that no other is."""
        self._interrupt: Callable[[], None] | None = None

    def run(self, connection: GroupingConnection, execute: Callable[..., sqlite3.Cursor]) -> None:
        self._interrupt = connection.interrupt
        for read in self._reads:
            if read.future.done():
                continue
            with self._turn:
                self._present = read
            try:
                if isinstance(read, PieceRead):
                    read.rows = _piece(connection.blobopen, read)
                else:
                    read.rows = execute(read.sql, read.parameters).fetchall()
            except Exception as error:
                read.error = translated(error)
            finally:
                with self._turn:
                    self._present = None

    def is_forsaken(self) -> bool:
        """Whether nobody waits for what is read now. It is called in the connection's thread."""
        return self._present is not None and self._present.future.done()

    def end(self, read: Read) -> None:
        """Have a SELECT end before it reads its next row, if it is the one that is read now."""
        with self._turn:
            if self._present is read and self._interrupt is not None:
                self._interrupt()


def _piece(open_blob: Callable[..., sqlite3.Blob], read: PieceRead) -> list[Row]:
    """SELECT would read the whole of the text for each piece of it; this reads nothing that comes behind the piece."""
    table, column, seq = read.text
    try:
        blob = open_blob(table, column, seq, readonly=True)
    except sqlite3.OperationalError as error:
        if "no such rowid" in str(error):
            return []
        raise
    with blob:
        total = len(blob)
        blob.seek(min(read.start, total))
        return [(blob.read(read.size), total)]


class GroupingConnection(sqlite3.Connection):
    """A connection that can run a whole group in one call.

    aiosqlite makes one round trip to its thread for each statement, and so one for a whole group. (Measured: BEGIN, two
    statements and COMMIT took four times as long one by one.) sqlite3 takes this class as ``factory``, which aiosqlite
    hands on to it.
    """

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql is GROUPED:
            parameters.run(self, super().execute)
            # A cursor without rows.
            return self.cursor()
        return super().execute(sql, parameters)


_nothing: dict[None, None] = {}


def register_none() -> None:
    """Have sqlite3 bind None as quickly as other values, in the whole process.

    For each None, sqlite3 looks for an adapter and raises an error inside when there is none. That takes ten times as
    long as to bind an integer, while Python's lock is held. With this adapter there is no error.
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
    """The store's own error for one of SQLite's."""
    if isinstance(error, ServiceError):
        return error
    if _is_about_the_whole_database(error):
        return CannotStoreError(f"the database takes no writes: {error}; nothing was accepted, try again later")
    if isinstance(error, sqlite3.IntegrityError) and "UNIQUE" in str(error):
        return UniqueViolationError(str(error))
    return StoreError(f"{type(error).__name__}: {error}")
