"""Writes that wait are committed together: in their order, answered after the commit, none harmed by another."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from service.errors import CannotStoreError, ServiceError, StoreError, UniqueViolationError
from service.job import Job, Outcome, Status, new_job_id
from service.store.database import Answers, Database, Statement, Written
from service.store.job_filters import Filter
from service.store.job_statements import INSERT
from service.store.jobs import JobStore
from service.store.pending import Read, Write
from service.store.sqlite.groups import GROUPED, GroupingConnection, ReadGroup, WaitingWrites
from tests.support.databases import Place
from tests.support.store_jobs import LINE, NOW, claimed, counted, inserted, look, new_job, seqs, stored

PATIENCE_SECONDS = 60.0
"""A thread that was told to end needs a moment; only one that was not is waited for so long."""
BAD = Statement("INSERT INTO bodies (seq, prompt, request) VALUES (:seq, 'no such job', '')", {"seq": 999_999})


async def test_one_bad_write_does_not_fail_its_neighbours(store: JobStore, database: Database) -> None:
    first = await stored(store)
    results = await asyncio.gather(
        stored(store, "before"),
        database.write(BAD),
        inserted(store, new_job("the same id"), first.id),
        stored(store, "after"),
        return_exceptions=True,
    )
    assert [type(result) for result in results[1:3]] == [StoreError, UniqueViolationError]
    assert [job.preview for job in await store.queries.page(Filter(), 9, 0)] == ["after", "before", first.preview]


async def test_a_write_is_carried_out_whole_or_not_at_all(store: JobStore, database: Database) -> None:
    job = await stored(store)
    with pytest.raises(StoreError):
        await database.write(Statement("UPDATE jobs SET owner = 'changed' WHERE seq = :seq", {"seq": job.seq}), BAD)
    assert await look(store, job) == job


async def test_writes_are_carried_out_in_the_order_in_which_they_were_begun(
    store: JobStore, database: Database
) -> None:
    job = await stored(store)
    write = "UPDATE jobs SET preview = preview || :letter WHERE seq = :seq RETURNING preview"
    other = "UPDATE jobs SET preview = preview || '-' || :letter WHERE seq = :seq RETURNING preview"
    writes = [
        database.write(Statement(other if letter in "cg" else write, {"letter": letter, "seq": job.seq}))
        for letter in "abcdefgh"
    ]
    answers = [(await answer)[0][0][0].removeprefix(job.preview) for answer in writes]
    assert answers == ["a", "ab", "ab-c", "ab-cd", "ab-cde", "ab-cdef", "ab-cdef-g", "ab-cdef-gh"]


async def test_each_write_gets_its_own_rows(store: JobStore) -> None:
    jobs = await asyncio.gather(*(stored(store, f"prompt {number}") for number in range(700)))
    assert [job.preview for job in jobs] == [f"prompt {number}" for number in range(700)]
    assert seqs(list(jobs)) == sorted({job.seq for job in jobs})
    claims = await asyncio.gather(*(store.claim(LINE, number % 3, NOW) for number in range(30)))
    assert [len(claim) for claim in claims] == [number % 3 for number in range(30)]
    done = await asyncio.gather(
        *(store.finish(one.job, Outcome(Status.COMPLETED), NOW) for claim in claims for one in claim),
        *(store.finish(job, Outcome(Status.COMPLETED), NOW) for job in jobs[:3]),
    )
    assert [job.seq if job else None for job in done] == [
        *seqs([one for claim in claims for one in claim]),
        *[None] * 3,
    ]


async def test_what_is_answered_is_seen_by_every_reader(store: JobStore, database: Database) -> None:
    for _ in range(20):
        job = await stored(store)
        rows = await asyncio.gather(
            *(
                database.read("SELECT id FROM jobs WHERE seq = :seq", {"seq": job.seq}, is_scan=is_scan)
                for is_scan in (False, False, True)
            )
        )
        assert rows == [[(job.id,)]] * 3


async def test_a_caller_that_leaves_does_not_take_its_write_along(store: JobStore) -> None:
    job_id = new_job_id(NOW)
    leaving = asyncio.ensure_future(inserted(store, new_job(), job_id))
    await asyncio.sleep(0)
    leaving.cancel()
    after = await stored(store)
    assert [job.id for job in await store.queries.page(Filter(), 9, 0)] == [after.id, job_id]


async def test_what_a_write_came_to_is_heard_before_its_caller_goes_on_and_also_when_that_is_gone(
    store: JobStore,
) -> None:
    heard: list[str] = []

    async def waits(job_id: str) -> None:
        await inserted(store, new_job(), job_id, settle=lambda _answers, error: heard.append(f"{job_id}: {error}"))
        heard.append(f"{job_id} goes on")

    first, second = new_job_id(NOW), new_job_id(NOW)
    leaving = asyncio.create_task(waits(first))
    await asyncio.sleep(0)
    leaving.cancel()
    await waits(second)
    assert heard == [f"{first}: None", f"{second}: None", f"{second} goes on"]
    with pytest.raises(UniqueViolationError):
        await waits(second)
    assert heard[3].startswith(f"{second}: UNIQUE") or "unique" in heard[3]


async def test_an_error_in_what_follows_a_write_costs_its_caller_only(store: JobStore) -> None:
    def fail(_answers: Answers, _error: ServiceError | None) -> None:
        raise ZeroDivisionError

    wrong, right = await asyncio.gather(
        inserted(store, new_job(), new_job_id(NOW), settle=fail), stored(store), return_exceptions=True
    )
    assert isinstance(wrong, StoreError)
    assert isinstance(right, Job)
    assert (await counted(store)).total() == 2


async def test_closing_waits_for_the_writes_that_were_begun_and_refuses_new_ones(place: Place) -> None:
    database = await place.open()
    store = JobStore(database, "one")
    writes = [asyncio.ensure_future(stored(store)) for _ in range(1500)]
    await asyncio.sleep(0)
    await database.close()
    assert len({job.seq for job in await asyncio.gather(*writes)}) == 1500
    refused: list[ServiceError | None] = []
    with pytest.raises(CannotStoreError):
        await inserted(store, new_job(), new_job_id(NOW), settle=lambda _answers, error: refused.append(error))
    assert [type(error) for error in refused] == [CannotStoreError]
    async with place.opened() as again:
        assert (await counted(JobStore(again, "one"))).total() == 1500


async def test_closing_leaves_no_thread_and_no_connection(place: Place) -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        async with place.opened() as database:
            store = JobStore(database, "one")
            database.listen(lambda payload: None)
            database.notify("hello")
            await stored(store)
            await counted(store)
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert len(asyncio.all_tasks()) == 1


async def test_an_outcome_that_can_wait_is_stored_although_new_jobs_never_stop(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database:
        store = JobStore(database, "one")
        job = await claimed(store)
        ending = asyncio.ensure_future(store.finish(job, Outcome(Status.COMPLETED), NOW, is_urgent=False))
        # A turn of the loop, so that the write is under way.
        await asyncio.sleep(0)
        stored_meanwhile = 0
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not ending.done():
                await asyncio.gather(stored(store, "more"), stored(store, "and more"))
                stored_meanwhile += 2
        assert stored_meanwhile
        assert (await look(store, job)).status == Status.COMPLETED


async def test_what_follows_a_new_job_finds_it(store: JobStore) -> None:
    claims = []
    for number in range(50):
        storing = asyncio.ensure_future(stored(store, f"prompt {number}"))
        claims.append(asyncio.ensure_future(store.claim(LINE, 1, NOW)))
        if number % 7 == 0:
            await storing
    assert [len(await claim) for claim in claims] == [1] * 50


async def test_other_writes_get_on_however_many_new_jobs_there_are() -> None:
    future: Written = asyncio.get_running_loop().create_future()
    waiting = WaitingWrites()
    new_job_write = Write([Statement(INSERT, ())], future)
    for _ in range(600):
        waiting.add(new_job_write)
    later = [Write([Statement("SELECT 1", {})], future, is_urgent=False) for _ in range(600)]
    for write in later:
        waiting.add(write)
    assert waiting.take(512) == [new_job_write] * 512
    waiting.is_rest_due = True
    assert (waiting.take(512), waiting.is_rest_due) == ([new_job_write] * 88 + later[:512], True)
    assert (waiting.take(512), waiting.is_rest_due, waiting.is_urgent) == (later[512:], False, False)


async def test_large_jobs_are_not_all_written_at_once() -> None:
    """SQLite holds several copies of all that one statement writes."""
    waiting, loop = WaitingWrites(), asyncio.get_running_loop()
    for size in (3 << 20, 3 << 20, 3 << 20, 3 << 20, 1, 1, 64 << 20, 1):
        waiting.add(Write([Statement(INSERT, (0, "x" * size))], loop.create_future()))
    groups = []
    while len(waiting):
        groups.append(len(waiting.take(64)))
    assert groups == [3, 4, 1]


def test_only_the_select_that_is_read_is_ended_and_before_its_next_row() -> None:
    loop = asyncio.new_event_loop()
    rows = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 9) SELECT tick(n) FROM n"
    reads = [Read(rows, {}, loop.create_future()) for _ in range(3)]
    group, ticks = ReadGroup(reads), []

    def tick(number: int) -> int:
        ticks.append(number)
        # Of the three the second is forsaken, while it is read, and once more while the third is.
        if len(ticks) > 9:
            group.end(reads[1])
        return number

    connection = sqlite3.connect(":memory:", factory=GroupingConnection)
    connection.create_function("tick", 1, tick)
    group.end(reads[0])
    connection.execute(GROUPED, group)
    group.end(reads[2])
    assert [len(read.rows) for read in reads] == [9, 0, 9]
    assert "interrupted" in str(reads[1].error)
    assert len(ticks) < 9 + 3 + 9
    assert len(connection.execute("SELECT 1").fetchall()) == 1
    connection.close()
    loop.close()
