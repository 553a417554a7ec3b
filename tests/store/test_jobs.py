"""Storing jobs and looking at them, on every database."""

from __future__ import annotations

import pytest

from service.errors import ServiceError, StoreError, UniqueViolationError
from service.job import Claimed, Counts, Outcome, Result, Segment, Status, new_job_id
from service.store.database import Database, Statement
from service.store.job_filters import Filter
from service.store.job_statements import EXACT_RANK
from service.store.jobs import JobStore
from tests.support.store_jobs import (
    LINE,
    NOW,
    claimed,
    duplicated,
    finished,
    inserted,
    look,
    new_job,
    prompt_of,
    result_of,
    seqs,
    stored,
)

AWKWARD = "naïve 日本語 🦙 \" \\ \n \t %_! ' ; -- $1 :name ::int"


async def test_an_inserted_job_is_read_back_as_it_was_returned(store: JobStore) -> None:
    job = await stored(store, AWKWARD, model="Llama3.2", priority=1, owner="müller", key_id="k", not_before=NOW + 5)
    assert await look(store, job) == job
    assert (job.status, job.attempt, job.failures, job.worker) == ("queued", 0, 0, None)
    assert (job.created_at, job.updated_at, job.started_at, job.finished_at) == (NOW, NOW, None, None)
    assert await prompt_of(store, job.seq) == AWKWARD


async def test_a_job_may_be_inserted_as_the_first_attempt_of_this_process(store: JobStore) -> None:
    job_id = new_job_id(NOW)
    job = await inserted(store, new_job(), job_id, is_started=True)
    assert await look(store, job) == job
    assert (job.status, job.attempt, job.worker, job.started_at) == ("processing", 1, "one", NOW)
    assert await store.claim(LINE, 5, NOW) == []
    assert await store.finish(job, Outcome(Status.COMPLETED), NOW) is not None


async def test_jobs_are_numbered_in_the_order_of_their_inserts_and_no_number_comes_twice(store: JobStore) -> None:
    first = await stored(store)
    await finished(store, owner="a")
    assert len(await store.prune(NOW + 1)) == 1
    last = await stored(store)
    assert first.seq < last.seq
    assert await store.queries.newest() == last.seq
    assert last.seq - first.seq == 2


async def test_the_same_id_cannot_be_inserted_twice(store: JobStore) -> None:
    job = await stored(store)
    with pytest.raises(UniqueViolationError):
        await inserted(store, new_job(), job.id)
    assert seqs(await store.queries.page(Filter(), 10, 0)) == [job.seq]


async def test_a_job_is_found_by_its_id_and_by_its_number(store: JobStore) -> None:
    job = await stored(store)
    assert await store.queries.standing_by_seq(job.seq) == await store.queries.standing(job.id) == (job, 0)
    assert await store.queries.standing("nobody") is None
    assert await store.queries.standing_by_seq(job.seq + 1) is None


async def test_the_outcome_is_stored_with_its_output(store: JobStore) -> None:
    job = await claimed(store)
    segments = (Segment("thinking", "hm"), Segment("text", AWKWARD), Segment("tool_calls", '[{"name":"f"}]'))
    outcome = Outcome(Status.COMPLETED, segments, Counts(26, 298, 1, 2, 3, "stop"), first_token_at=NOW + 2)
    done = await store.finish(job, outcome, NOW + 9)
    assert done is not None
    assert await look(store, done) == done
    assert (done.status, done.finished_at, done.first_token_at) == ("completed", NOW + 9, NOW + 2)
    assert (done.prompt_tokens, done.completion_tokens, done.done_reason) == (26, 298, "stop")
    assert await result_of(store, job.seq) == Result(1, segments)


async def test_why_the_model_stopped_is_nothing_until_it_did(store: JobStore) -> None:
    job = await claimed(store)
    assert (await look(store, job)).done_reason is None
    back = await store.put_back(job, NOW)
    assert back is not None
    assert (await look(store, back)).done_reason is None
    [again] = await store.claim(LINE, 1, NOW)
    done = await store.finish(again.job, Outcome(Status.COMPLETED, counts=Counts(done_reason="length")), NOW)
    assert done is not None
    assert await look(store, done) == done
    assert done.done_reason == "length"


async def test_a_reason_that_no_database_keeps_does_not_cost_the_result(store: JobStore) -> None:
    job = await claimed(store)
    counts = Counts(done_reason="st\0op\ud800" + "x" * 500)
    done = await store.finish(job, Outcome(Status.COMPLETED, (Segment("text", "whole"),), counts), NOW)
    assert done is not None
    assert await look(store, done) == done
    assert await result_of(store, job.seq) == Result(1, (Segment("text", "whole"),))
    assert len(done.done_reason or "") <= 200


async def test_a_failed_job_keeps_its_error_and_what_it_wrote(store: JobStore) -> None:
    job = await claimed(store)
    outcome = Outcome(Status.FAILED, (Segment("text", "half"),), error_code="truncated", error_message=AWKWARD)
    failed = await store.finish(job, outcome, NOW)
    assert failed is not None
    assert await look(store, failed) == failed
    assert (failed.error_code, failed.error_message) == ("truncated", AWKWARD)
    assert await result_of(store, job.seq) == Result(1, (Segment("text", "half"),))


async def test_a_job_that_has_not_ended_has_no_result(store: JobStore) -> None:
    assert await result_of(store, (await claimed(store)).seq) is None


@pytest.mark.parametrize("text", ["a\ud83d lone surrogate", "a\0 NUL"])
async def test_what_no_database_can_hold_as_text_is_replaced_and_loses_nothing_else(store: JobStore, text: str) -> None:
    job = await stored(store, text)
    assert await prompt_of(store, job.seq) == text.replace("\ud83d", "�").replace("\0", "�")
    [one] = await store.claim(LINE, 1, NOW)
    outcome = Outcome(Status.FAILED, (Segment("text", text),), error_code="e", error_message=text)
    done = await store.finish(one.job, outcome, NOW)
    assert done is not None
    assert await look(store, done) == done
    assert await result_of(store, job.seq) == Result(1, (Segment("text", text),))


async def test_the_rank_counts_the_ready_jobs_ahead_in_the_same_line(store: JobStore) -> None:
    await stored(store)
    await stored(store, not_before=NOW + 1)
    await stored(store, owner="other")
    await stored(store, priority=1)
    await stored(store, model="mistral")
    await stored(store)
    last = await stored(store)
    assert await store.queries.standing(last.id) == (last, 2)
    [first] = await store.claim(LINE, 1, NOW)
    assert await store.queries.standing(last.id) == (last, 1)
    assert await store.queries.standing(first.job.id) == (first.job, 0)


async def test_the_rank_is_counted_up_to_a_thousand(store: JobStore, database: Database) -> None:
    first = await stored(store)
    await duplicated(database, first.seq, EXACT_RANK + 5)
    last = await stored(store)
    assert await store.queries.standing(last.id) == (last, EXACT_RANK)
    assert await store.queries.oldest_of_line(LINE) == first.seq


async def test_a_job_that_never_was_has_no_prompt(store: JobStore) -> None:
    job = await stored(store)
    assert await prompt_of(store, job.seq + 1) == ""


async def test_a_claim_brings_the_request(store: JobStore) -> None:
    request = '{"prompt":"' + AWKWARD.encode("unicode_escape").decode() + '"}'
    job = await stored(store, request=request)
    [one] = await store.claim(LINE, 1, NOW + 3)
    expected = job._replace(status="processing", attempt=1, worker="one", started_at=NOW + 3, updated_at=NOW + 3)
    assert one == Claimed(expected, request)


async def test_jobs_are_found_by_their_numbers(store: JobStore) -> None:
    jobs = [await stored(store) for _ in range(60)]
    assert await store.queries.by_seqs([job.seq for job in jobs]) == {job.seq: job for job in jobs}
    assert await store.queries.by_seqs([jobs[0].seq, jobs[-1].seq + 1]) == {jobs[0].seq: jobs[0]}
    assert await store.queries.by_seqs([]) == {}


async def test_the_oldest_ready_job_of_a_runner_is_found_over_all_its_lines(store: JobStore) -> None:
    assert await store.queries.oldest_ready(LINE.runner) is None
    await stored(store, not_before=NOW + 1)
    first = await stored(store, owner="a", priority=-1, now=NOW + 7)
    await stored(store, owner="b", priority=1, now=NOW + 8)
    assert await store.queries.oldest_ready(LINE.runner) == (first.seq, NOW + 7)
    assert await store.queries.has_ready()


async def test_only_delayed_jobs_are_not_ready(store: JobStore) -> None:
    assert not await store.queries.has_ready()
    await stored(store, not_before=NOW + 1)
    assert not await store.queries.has_ready()


async def test_the_latest_stored_time_is_known(store: JobStore) -> None:
    assert await store.queries.latest_time() == 0
    await finished(store, NOW + 50)
    await stored(store, now=NOW + 20)
    assert await store.queries.latest_time() == NOW + 50


async def test_a_statement_that_the_database_refuses_is_an_error_of_the_store(database: Database) -> None:
    with pytest.raises(StoreError):
        await database.read("SELECT nothing FROM nowhere", {})
    with pytest.raises(StoreError):
        await database.write(Statement("DELETE FROM nowhere", {}))
    assert await database.read("SELECT 1", {}) == [(1,)]


async def test_a_reading_connection_writes_nothing(store: JobStore, database: Database) -> None:
    job = await stored(store)
    for is_scan in (False, True):
        with pytest.raises(ServiceError):
            await database.read("DELETE FROM jobs RETURNING seq", {}, is_scan=is_scan)
    assert await look(store, job) == job
