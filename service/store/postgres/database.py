"""PostgreSQL, for several processes that share the work: one connection writes, in groups; a few connections read.

The writes that wait are taken together into one transaction, in the order in which they were begun, and answered after
its commit. A lost connection is made again when it is next needed. When the answer to a commit was lost, the server is
asked what became of it, so that no write is reported as failed that was carried out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import asyncpg

from service.errors import CannotStoreError, DatabaseUnusableError
from service.metrics.values import COMMIT_BOUNDS, Histogram
from service.store.database import Batch, LongText, Row, Settle, Statement, TextPiece, Written
from service.store.migrations import MIGRATIONS, NEWEST
from service.store.pending import Read, Write
from service.store.postgres.connections import Link, connect, is_in_the_way, lost, shown, translated
from service.store.postgres.notices import Notices
from service.store.postgres.statements import converted, run_in_order

_OLDEST_SERVER = 13
"""It brought ``pg_current_xact_id``."""
_WAITING_WRITES = 20_000
"""When so many writes wait for the server, new ones are refused."""
_GROUP = 512
_POINT_READERS = 2
_IN_DOUBT_SECONDS = 15.0
_USED_BYTES = """
    SELECT (SELECT coalesce(sum(pg_column_size(prompt) + pg_column_size(request)), 0) FROM bodies)
        + (SELECT coalesce(sum(pg_column_size(segments)), 0) FROM results)
        + (SELECT coalesce(sum(pg_column_size(reply_body)), 0) FROM idempotency WHERE reply_body IS NOT NULL)
        + (SELECT coalesce(sum(pg_column_size(data)), 0) FROM reply_pieces)
"""

_WORDS = {
    "growing_key": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "integer": "BIGINT",
    "real": "DOUBLE PRECISION",
    "strict": "",
    "model_of_runner": "split_part(runner, ' ', 1)",
    "instead_of_insert": "CREATE OR REPLACE FUNCTION new_jobs_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN",
    "seq_given": "",
    "new_seq_given": "",
    "seq_taken": "RETURNING seq INTO NEW.seq",
    "instead_of_insert_end": (
        "RETURN NEW; END $$; CREATE TRIGGER new_jobs_insert INSTEAD OF INSERT ON new_jobs "
        "FOR EACH ROW EXECUTE FUNCTION new_jobs_insert()"
    ),
    "instead_of_outcome": "CREATE OR REPLACE FUNCTION outcomes_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN",
    "unless_changed": "IF NOT FOUND THEN RETURN NULL; END IF;",
    "instead_of_outcome_end": (
        "RETURN NEW; END $$; CREATE TRIGGER outcomes_insert INSTEAD OF INSERT ON outcomes "
        "FOR EACH ROW EXECUTE FUNCTION outcomes_insert()"
    ),
}


class PostgresDatabase:
    """A schema on a PostgreSQL server. :class:`service.store.database.Database` says what the methods promise."""

    claim_lock = "FOR UPDATE SKIP LOCKED"
    share_lock = "FOR SHARE"
    text_size = "pg_column_size({column})"
    present_ms = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
    contains_text = "position(convert_to(lower(:text), 'UTF8') IN convert_to(lower(prompt), 'UTF8')) > 0"
    is_shared = True
    keeps_order = True
    """True of the writes of this process, since they go over one connection."""

    def __init__(self, url: str) -> None:
        self.commit_seconds = Histogram(COMMIT_BOUNDS)
        self._writer = Link(url)
        self._points = _Readers([_reading_link(url) for _ in range(_POINT_READERS)])
        self._scans = _Readers([_reading_link(url)], ends_with_those_who_wait=True)
        self._notices = Notices(url)
        self._waiting: list[Write] = []
        self._flushing: asyncio.Task[None] | None = None
        self._is_closed = False

    @classmethod
    async def open(cls, url: str) -> PostgresDatabase:
        """Reach the server, and apply the migrations that its schema lacks.

        Raises DatabaseUnusableError when the server cannot be reached or is too old, and when the schema is newer than
        the program.
        """
        try:
            connection = await connect(url, {"application_name": "corral"}, answer_seconds=None)
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DatabaseUnusableError(
                f"{shown(url)}: {str(error) or type(error).__name__}; "
                "check that it runs, and what database.url (DATABASE_URL) says"
            ) from error
        try:
            await _check_server(connection, url)
            await _migrate(connection, url)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DatabaseUnusableError(
                f"{shown(url)}: {error}; the user needs the right to create tables in the schema"
            ) from error
        finally:
            await connection.close()
        return cls(url)

    async def prepare(self) -> None:
        """Nothing makes it quicker."""

    def next_number(self) -> None:
        """None: the server gives the numbers, since other processes may make jobs, too."""

    def write(self, *statements: Statement | Batch, is_urgent: bool = True, settle: Settle | None = None) -> Written:
        loop = asyncio.get_running_loop()
        future: Written = loop.create_future()
        write = Write(statements, future, settle=settle)
        if self._is_closed or len(self._waiting) >= _WAITING_WRITES:
            write.error = CannotStoreError("the database cannot keep up with the writes; try again")
            loop.call_soon(write.settle)
            return future
        self._waiting.append(write)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return future

    def read(self, sql: str, parameters: Mapping[str, Any], *, is_scan: bool = False) -> asyncio.Future[list[Row]]:
        return (self._scans if is_scan else self._points).read(sql, parameters)

    async def piece(self, text: LongText, start: int, size: int) -> TextPiece | None:
        table, column, seq = text
        rows = await self._points.read(
            f"SELECT substring(convert_to({column}, 'UTF8') FROM CAST(:start AS INTEGER) FOR CAST(:size AS INTEGER)), "
            f"octet_length({column}) FROM {table} WHERE seq = :seq",
            {"start": start + 1, "size": size, "seq": seq},
        )
        return TextPiece(*rows[0]) if rows else None

    async def used_bytes(self) -> int:
        """The size of the texts as they are stored. That of the tables would not fall when rows are deleted, since it
        is the server that makes room free, when it sees fit.
        """
        rows = await self.read(_USED_BYTES, {}, is_scan=True)
        return int(rows[0][0])

    async def give_back(self, above_bytes: int) -> bool:
        """The server's vacuum does that."""
        return False

    def erase(self) -> asyncio.Future[bool]:
        """Not certain: deleted rows are in the server's files until they are vacuumed, and in its log and backups."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        future.set_result(False)
        return future

    def notify(self, payload: str) -> None:
        self._notices.send(payload)

    def listen(self, receive: Callable[[str], None]) -> None:
        self._notices.listen(receive)

    async def close(self) -> None:
        self._is_closed = True
        if self._flushing is not None:
            await self._flushing
        await self._notices.close()
        await self._points.close()
        await self._scans.close()
        await self._writer.close()

    async def _flush(self) -> None:
        # One turn of the loop for those who write in answer to the same event, a claim after its insert above all.
        await asyncio.sleep(0)
        while self._waiting:
            writes, self._waiting = self._waiting[:_GROUP], self._waiting[_GROUP:]
            begun = perf_counter()
            await self._commit_all(writes)
            self.commit_seconds.observe(perf_counter() - begun)
            for write in writes:
                write.settle()
        self._flushing = None

    async def _commit_all(self, writes: list[Write]) -> None:
        try:
            await self._commit(writes)
        except Exception as error:
            if len(writes) == 1 or (isinstance(translated(error), CannotStoreError) and not is_in_the_way(error)):
                for write in writes:
                    write.error = translated(error)
                return
            for write in writes:
                await self._commit_all([write])

    async def _commit(self, writes: Sequence[Write]) -> None:
        """Carry out writes in one transaction. It is tried a second time when the connection was lost, or when it stood
        in the way of another process's transaction.
        """
        for is_last in (False, True):
            connection = await self._writer.get()
            transaction: str | None = None
            try:
                await connection.execute("BEGIN")
                await run_in_order(connection, writes)
                transaction = await connection.fetchval("SELECT pg_current_xact_id_if_assigned()::text")
                await connection.execute("COMMIT")
            except Exception as error:
                if self._writer.is_lost_by(error):
                    self._writer.lose()
                    if transaction is not None and await self._was_committed(transaction):
                        return
                    if is_last:
                        raise lost(error) from error
                else:
                    await self._roll_back(connection)
                    if is_last or not is_in_the_way(error):
                        raise
            else:
                return

    async def _roll_back(self, connection: asyncpg.Connection[Any]) -> None:
        try:
            await connection.execute("ROLLBACK")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._writer.lose()

    async def _was_committed(self, transaction: str) -> bool:
        """Whether a transaction was committed whose connection was lost during the commit."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _IN_DOUBT_SECONDS
        while True:
            try:
                connection = await self._writer.get_within(end - loop.time())
            except CannotStoreError as error:
                raise CannotStoreError(
                    "the database was lost during a commit, and it is not known whether that was carried out"
                ) from error
            status = await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", transaction)
            if status != "in progress" or loop.time() > end:
                return bool(status == "committed")
            # The server has not noticed yet that the connection is lost.
            await asyncio.sleep(_IN_DOUBT_SECONDS / 100)


class _Readers:
    """A few reading connections. Each takes the next SELECT that waits.

    ``ends_with_those_who_wait``: the server ends one for which nobody waits any more.
    """

    def __init__(self, links: list[Link], *, ends_with_those_who_wait: bool = False) -> None:
        self._links = links
        self._ends_with_those_who_wait = ends_with_those_who_wait
        self._idle = list(links)
        self._waiting: deque[Read] = deque()
        self._running: set[asyncio.Task[None]] = set()

    def read(self, sql: str, parameters: Mapping[str, Any]) -> asyncio.Future[list[Row]]:
        future: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()
        self._waiting.append(Read(sql, parameters, future))
        if self._idle:
            task = asyncio.create_task(self._run(self._idle.pop()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return future

    async def close(self) -> None:
        if self._running:
            await asyncio.wait(self._running)
        for link in self._links:
            await link.close()

    async def _run(self, link: Link) -> None:
        while self._waiting:
            read = self._waiting.popleft()
            if read.future.done():
                continue
            try:
                if self._ends_with_those_who_wait:
                    read.rows = await self._fetch_while_wanted(link, read)
                else:
                    read.rows = await self._fetch(link, read)
            except Exception as error:
                read.error = translated(error)
            read.settle()
        self._idle.append(link)

    async def _fetch_while_wanted(self, link: Link, read: Read) -> list[Row]:
        fetching = asyncio.ensure_future(self._fetch(link, read))
        read.future.add_done_callback(lambda _future: fetching.cancel())
        try:
            return await fetching
        except asyncio.CancelledError:
            if not read.future.cancelled():
                raise
            return []

    async def _fetch(self, link: Link, read: Read, *, is_last: bool = False) -> list[Row]:
        statement = converted(read.sql)
        connection = await link.get()
        try:
            records = await connection.fetch(statement.sql, *statement.arguments(read.parameters))
        except Exception as error:
            if not link.is_lost_by(error):
                raise
            link.lose()
            if is_last:
                raise lost(error) from error
            # The connection may have been lost long ago, while nobody read.
            return await self._fetch(link, read, is_last=True)
        return [tuple(record) for record in records]


def _reading_link(url: str) -> Link:
    return Link(url, default_transaction_read_only="on")


async def _check_server(connection: asyncpg.Connection[Any], url: str) -> None:
    version = connection.get_server_version()
    if version.major < _OLDEST_SERVER:
        raise DatabaseUnusableError(
            f"{shown(url)}: version {version.major} is too old; Corral needs PostgreSQL {_OLDEST_SERVER} or newer"
        )
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise DatabaseUnusableError(
            f"{shown(url)}: its encoding {encoding} cannot hold every text; create the database with ENCODING 'UTF8'"
        )


async def _migrate(connection: asyncpg.Connection[Any], url: str) -> None:
    """Apply the missing migrations, all or none. When several processes start together, one does it and the others
    wait.
    """
    async with connection.transaction():
        schema = await connection.fetchval("SELECT current_schema()")
        key = int.from_bytes(hashlib.sha256(f"corral {schema}".encode()).digest()[:8], signed=True)
        await connection.execute("SELECT pg_advisory_xact_lock($1)", key)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (number BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)"
        )
        present = await connection.fetchval("SELECT coalesce(max(number), 0) FROM schema_migrations")
        if present > NEWEST:
            raise DatabaseUnusableError(
                f"{shown(url)}: written by a newer Corral (schema {present}, this one knows {NEWEST}); "
                "upgrade Corral or use another database"
            )
        for migration in MIGRATIONS[present:]:
            for statement in migration.statements:
                await connection.execute(statement.format_map(_WORDS))
            await connection.execute(
                "INSERT INTO schema_migrations VALUES ($1, CAST(extract(epoch FROM now()) * 1000 AS BIGINT))",
                migration.number,
            )
