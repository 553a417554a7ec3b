"""Who is dead: a process that owns jobs and has not said for too long that it lives."""

from __future__ import annotations

from service.store.database import Database, Statement
from service.store.jobs import JobStore
from service.store.processes import ProcessStore
from tests.support.store_jobs import claimed, finished, stored

LIVES, DIED = 30.0, -1.0
"""No beat is younger than a second that has not come yet."""


async def test_a_process_that_owns_running_jobs_and_never_said_that_it_lives_is_lost(database: Database) -> None:
    one, two = JobStore(database, "one"), JobStore(database, "two")
    workers = ProcessStore(database, "one")
    assert await workers.lost(LIVES) == []
    await claimed(one)
    await claimed(two, owner="a")
    await claimed(two, owner="b")
    assert await workers.lost(LIVES) == ["two"]
    await two.rescue("two", 0)
    assert await workers.lost(LIVES) == []


async def test_a_process_whose_callers_wait_is_lost_in_the_same_way(database: Database) -> None:
    await stored(JobStore(database, "two"), on_disconnect="cancel")
    await stored(JobStore(database, "three"))
    assert await ProcessStore(database, "one").lost(LIVES) == ["two"]


async def test_a_process_that_says_that_it_lives_is_not_lost_until_it_is_silent_for_too_long(
    database: Database,
) -> None:
    await claimed(JobStore(database, "two"))
    one, two = ProcessStore(database, "one"), ProcessStore(database, "two")
    for _ in range(2):
        await two.beat()
        assert await one.lost(LIVES) == []
        assert await two.lost(LIVES) == []
    assert await one.lost(DIED) == ["two"]
    await two.leave()
    assert await one.lost(LIVES) == ["two"]


async def test_a_process_that_owns_nothing_is_nobodys_concern(database: Database) -> None:
    await finished(JobStore(database, "two"))
    await ProcessStore(database, "two").beat()
    assert await ProcessStore(database, "one").lost(DIED) == []


async def test_only_what_has_been_dead_for_long_is_forgotten(database: Database) -> None:
    workers = ProcessStore(database, "one")
    await workers.beat()
    await database.write(Statement("INSERT INTO workers VALUES ('old', 0, 0)", {}))
    await workers.forget(LIVES)
    assert await database.read("SELECT id FROM workers", {}) == [("one",)]
