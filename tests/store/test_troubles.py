"""A database that takes no writes for a while: callers are told at once, nothing half is kept, and it recovers."""

from __future__ import annotations

import asyncio
import resource
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from typing import TypeVar

import asyncpg
import pytest

from service.config import DatabaseConfig
from service.errors import CannotStoreError
from service.job import Job, Outcome, Result, Segment, Status
from service.store.database import Database, Statement
from service.store.job_filters import Filter
from service.store.jobs import JobStore
from service.store.postgres.connections import Link, translated
from tests.support.databases import Gateway, Place, PostgresServer, own_schema
from tests.support.store_jobs import NOW, claimed, counted, look, prompt_of, result_of, seqs, stored

_Answer = TypeVar("_Answer")
BIG = "x" * 200_000
DONE = Outcome(Status.COMPLETED, (Segment("text", "the end"),))


@pytest.fixture
async def on_disk(sqlite_place: Place) -> AsyncIterator[Database]:
    """SQLite, which waits only a moment for a lock."""
    async with sqlite_place.opened() as database:
        await database.write(Statement("PRAGMA busy_timeout = 20", {}))
        yield database


@pytest.fixture
async def behind_gateway(postgres_server: PostgresServer, gateway: Gateway) -> AsyncIterator[Database]:
    """PostgreSQL by way of the gateway."""
    async with own_schema(postgres_server) as schema:
        place = Place(DatabaseConfig(url=postgres_server.url(schema, gateway.folder)))
        async with place.opened() as database:
            yield database


async def eventually(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """The answer, as soon as the database gives one again."""
    while True:
        try:
            return await ask()
        except CannotStoreError:
            await asyncio.sleep(0)


async def test_a_file_that_another_process_has_locked_takes_no_writes_until_it_lets_go(
    on_disk: Database, sqlite_place: Place
) -> None:
    store = JobStore(on_disk, "one")
    job = await claimed(store)
    with closing(sqlite3.connect(sqlite_place.config.path, isolation_level=None)) as another:
        another.execute("BEGIN EXCLUSIVE")
        results = await asyncio.gather(*(stored(store) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [CannotStoreError] * 3
        with pytest.raises(CannotStoreError, match="locked"):
            await store.finish(job, DONE, NOW)
        assert await look(store, job) == job
        another.execute("ROLLBACK")
    assert await store.finish(job, DONE, NOW) is not None
    assert seqs(await store.queries.page(Filter(), 9, 0)) == [job.seq]


async def test_a_database_that_is_full_takes_no_writes_until_there_is_room(on_disk: Database) -> None:
    store = JobStore(on_disk, "one")
    job = await claimed(store)
    [[(pages,)]] = await on_disk.write(Statement("PRAGMA page_count", {}))
    await on_disk.write(Statement(f"PRAGMA max_page_count = {pages + 5}", {}))
    with pytest.raises(CannotStoreError, match="full"):
        await stored(store, BIG)
    outcome = Outcome(Status.COMPLETED, (Segment("text", BIG),))
    with pytest.raises(CannotStoreError, match="full"):
        await store.finish(job, outcome, NOW)
    assert await look(store, job) == job
    await on_disk.write(Statement("PRAGMA max_page_count = 1000000", {}))
    assert await store.finish(job, outcome, NOW) is not None
    assert await result_of(store, job.seq) == Result(1, outcome.segments)


async def test_a_disk_that_takes_no_byte_more_takes_no_writes_until_there_is_room(on_disk: Database) -> None:
    store = JobStore(on_disk, "one")
    job = await stored(store)
    most, most_of_all = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, most_of_all))
    try:
        with pytest.raises(CannotStoreError):
            await stored(store, BIG)
        assert await look(store, job) == job
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most_of_all))
    after = await stored(store, BIG)
    assert seqs(await store.queries.page(Filter(), 9, 0)) == seqs([after, job])


async def test_a_server_that_cannot_be_reached_takes_no_writes_until_it_is_back(
    behind_gateway: Database, gateway: Gateway
) -> None:
    store = JobStore(behind_gateway, "one")
    job = await claimed(store)
    await gateway.shut()
    results = await asyncio.gather(*(stored(store) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [CannotStoreError] * 3
    with pytest.raises(CannotStoreError):
        await store.finish(job, DONE, NOW)
    with pytest.raises(CannotStoreError):
        await look(store, job)
    await gateway.open()
    finished: Job | None = await eventually(lambda: store.finish(job, DONE, NOW))
    assert finished is not None
    assert await eventually(lambda: look(store, job)) == finished
    assert seqs(await eventually(lambda: store.queries.page(Filter(), 9, 0))) == [job.seq]


async def test_connections_that_the_server_ended_are_made_again_without_a_word(
    postgres_place: Place, postgres_server: PostgresServer
) -> None:
    async with postgres_place.opened() as database, postgres_server.connected() as operator:
        store = JobStore(database, "one")
        for _ in range(2):
            job = await stored(store)
            assert (await counted(store)).total() == job.seq
            await operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'corral'"
            )
            assert await look(store, job) == job


@pytest.mark.parametrize("query", ["BEGIN", "INSERT INTO jobs", "INSERT INTO bodies", "COMMIT"])
async def test_a_write_whose_answer_is_lost_on_the_way_is_carried_out_exactly_once(
    behind_gateway: Database, gateway: Gateway, query: str
) -> None:
    store = JobStore(behind_gateway, "one")
    first = await stored(store)
    gateway.swallow_the_answer_to(query)
    job = await stored(store, "in doubt")
    assert await prompt_of(store, job.seq) == "in doubt"
    assert seqs(await store.queries.page(Filter(), 9, 0)) == seqs([job, first])


async def test_an_outcome_whose_commit_is_lost_on_the_way_is_known_to_be_stored(
    behind_gateway: Database, gateway: Gateway
) -> None:
    store = JobStore(behind_gateway, "one")
    job = await claimed(store)
    gateway.swallow_the_answer_to("COMMIT")
    done = await store.finish(job, DONE, NOW)
    assert done is not None
    assert await look(store, job) == done


async def test_processes_that_stand_in_each_others_way_both_get_through(postgres_place: Place) -> None:
    async with postgres_place.opened() as here, postgres_place.opened() as there:
        one, two = JobStore(here, "one"), JobStore(there, "two")
        jobs = list(await asyncio.gather(*(stored(one) for _ in range(200))))
        cancelled = await asyncio.gather(
            *(one.cancel(job.id, NOW) for job in jobs), *(two.cancel(job.id, NOW) for job in reversed(jobs))
        )
        assert sorted(job.seq for job in cancelled if job is not None) == seqs(jobs)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('192.0.2.7', 5432)"), "Connection refused"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('192.0.2.7', 5432)"), "no connection could be"),
        (TimeoutError(), "it did not answer in time"),
        (asyncpg.InvalidPasswordError('password authentication failed for user "corral"'), "it does not let"),
        (
            asyncpg.InvalidAuthorizationSpecificationError('no pg_hba.conf entry for host "192.0.2.7"'),
            "it does not let",
        ),
        (asyncpg.DiskFullError("could not extend file: No space left on device"), "could not extend file"),
    ],
)
def test_callers_are_not_told_where_the_database_is(error: Exception, told: str) -> None:
    shown = translated(error)
    assert isinstance(shown, CannotStoreError)
    assert told in str(shown)
    assert "192.0.2.7" not in str(shown)


async def test_the_log_says_where_the_database_is_that_cannot_be_reached(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing_soon:
        port = closing_soon.getsockname()[1]
    link = Link(f"postgresql://somebody:secret@127.0.0.1:{port}/jobs")
    for _ in range(2):
        with pytest.raises(CannotStoreError) as refused:
            await link.get_within(0)
        assert str(port) not in str(refused.value)
    (line,) = caplog.messages
    assert line.startswith(f"PostgreSQL 127.0.0.1:{port}/jobs cannot be used: ")
    assert "secret" not in line
