"""Claims: oldest first, exactly as many as asked for, only what is ready, and no job for two."""

from __future__ import annotations

import asyncio

import asyncpg

from service.job import Line
from service.store.jobs import JobStore
from tests.support.databases import Place
from tests.support.store_jobs import LINE, NOW, claimed, counted, finished, look, seqs, stored


async def test_the_oldest_are_claimed_first_and_exactly_as_many_as_asked_for(store: JobStore) -> None:
    jobs = [await stored(store) for _ in range(5)]
    assert seqs(await store.claim(LINE, 2, NOW)) == seqs(jobs[:2])
    assert seqs(await store.claim(LINE, 9, NOW)) == seqs(jobs[2:])
    assert await store.claim(LINE, 1, NOW) == []


async def test_what_was_put_back_goes_before_what_came_later(store: JobStore) -> None:
    first, second = await stored(store), await stored(store)
    [one] = await store.claim(LINE, 1, NOW)
    assert await store.put_back(one.job, NOW)
    assert seqs(await store.claim(LINE, 2, NOW)) == seqs([first, second])


async def test_only_ready_jobs_of_the_line_are_claimed(store: JobStore) -> None:
    await stored(store, not_before=NOW - 1)
    await stored(store, model="mistral")
    await stored(store, owner="other")
    await stored(store, priority=1)
    await claimed(store, owner="running")
    await finished(store, owner="done")
    for line in (LINE, LINE._replace(owner="running"), LINE._replace(owner="done")):
        assert await store.claim(line, 9, NOW) == []
    job = await stored(store)
    assert seqs(await store.claim(LINE, 9, NOW)) == [job.seq]


async def test_a_job_whose_caller_waits_at_a_process_is_claimed_by_that_one_alone(
    store: JobStore, other: JobStore
) -> None:
    waited_for = await stored(store, on_disconnect="cancel")
    assert await other.claim(LINE, 9, NOW) == []
    assert not await other.queries.has_ready()
    assert await other.queries.oldest_ready(LINE.runner) is None
    assert (await counted(other)).ready(LINE) == 0
    assert (await counted(store)).ready(LINE) == 1
    assert await store.queries.has_ready()
    free = await stored(store)
    assert seqs(await other.claim(LINE, 9, NOW)) == [free.seq]
    assert seqs(await store.claim(LINE, 9, NOW)) == [waited_for.seq]


async def test_options_that_reload_a_model_make_a_line_of_their_own(store: JobStore) -> None:
    large = await stored(store, runner='llama3.2:latest {"num_ctx":8192}')
    small = await stored(store)
    assert large.line == Line('llama3.2:latest {"num_ctx":8192}', "", 0)
    assert seqs(await store.claim(LINE, 9, NOW)) == [small.seq]
    assert seqs(await store.claim(large.line, 9, NOW)) == [large.seq]


async def test_each_claim_is_an_attempt_of_its_own(store: JobStore, other: JobStore) -> None:
    await stored(store)
    for attempt, claimer in enumerate((store, other, store), 1):
        [one] = await claimer.claim(LINE, 1, NOW + attempt)
        assert one.job.attempt == attempt
        assert one.job.worker == ("two" if claimer is other else "one")
        assert await look(store, one.job) == one.job
        assert await claimer.put_back(one.job, NOW + attempt) is not None


async def test_claimers_at_the_same_time_never_get_one_row_twice(store: JobStore, other: JobStore) -> None:
    jobs = await asyncio.gather(*(stored(store) for _ in range(60)))
    shares = await asyncio.gather(*(claimer.claim(LINE, 2, NOW) for claimer in (store, other) * 20))
    assert sorted(seq for share in shares for seq in seqs(share)) == sorted(seqs(jobs))


async def test_two_processes_never_get_one_row_twice(postgres_place: Place) -> None:
    async with postgres_place.opened() as here, postgres_place.opened() as there:
        one, two = JobStore(here, "one"), JobStore(there, "two")
        jobs = await asyncio.gather(*(stored(one) for _ in range(200)))
        shares = await asyncio.gather(*(claimer.claim(LINE, 3, NOW) for claimer in (one, two) * 50))
        got = [seq for share in shares for seq in seqs(share)]
        assert len(got) == len(set(got))
        rest = await one.claim(LINE, 200, NOW)
        assert sorted(got + seqs(rest)) == sorted(seqs(jobs))


async def test_a_claim_sees_the_insert_that_was_begun_before_it(store: JobStore) -> None:
    assert store.keeps_order
    inserting = asyncio.ensure_future(stored(store))
    await asyncio.sleep(0)
    claims = await store.claim(LINE, 1, NOW)
    assert seqs(claims) == [(await inserting).seq]


async def test_a_job_that_another_process_holds_is_passed_over(postgres_place: Place) -> None:
    async with postgres_place.opened() as database:
        store = JobStore(database, "one")
        first, second = await stored(store), await stored(store)
        another = await asyncpg.connect(postgres_place.config.url)
        async with another.transaction():
            await another.execute("SELECT seq FROM jobs WHERE seq = $1 FOR UPDATE", first.seq)
            assert seqs(await store.claim(LINE, 1, NOW)) == [second.seq]
        await another.close()
        assert seqs(await store.claim(LINE, 1, NOW)) == [first.seq]
