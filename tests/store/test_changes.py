"""Races end in the store: every change names the status and attempt that it expects, and a stale one writes nothing."""

from __future__ import annotations

import asyncio

import pytest

from service.job import Job, Outcome, Result, Segment, Status
from service.store.jobs import JobStore
from tests.support.store_jobs import LINE, NOW, backlog_of, claimed, finished, look, prompt_of, result_of, seqs, stored

DONE = Outcome(Status.COMPLETED, (Segment("text", "the end"),))
HALF = (Segment("text", "half"),)


async def test_a_finish_is_stored_once(store: JobStore) -> None:
    job = await claimed(store)
    done = await store.finish(job, DONE, NOW + 1)
    assert done is not None
    assert await store.finish(job, Outcome(Status.FAILED, HALF), NOW + 2) is None
    assert await look(store, job) == done
    assert await result_of(store, job.seq) == Result(1, DONE.segments)


async def test_an_attempt_that_was_superseded_writes_nothing(store: JobStore) -> None:
    old = await claimed(store)
    assert await store.put_back(old, NOW) is not None
    [new] = await store.claim(LINE, 1, NOW)
    assert await store.finish(old, DONE, NOW) is None
    assert await store.put_back(old, NOW) is None
    assert await look(store, old) == new.job
    assert await result_of(store, old.seq) is None


async def test_a_queued_job_is_neither_finished_nor_put_back(store: JobStore) -> None:
    job = await stored(store)
    assert await store.finish(job, DONE, NOW) is None
    assert await store.put_back(job, NOW) is None
    assert await look(store, job) == job


async def test_a_job_that_is_put_back_keeps_its_failures_and_its_last_error(store: JobStore) -> None:
    job = await claimed(store)
    back = await store.put_back(
        job, NOW + 1, failures=1, crashes=1, not_before=NOW + 500, error_code="stalled", error_message="no byte"
    )
    assert back is not None
    assert back == await look(store, job)
    assert (back.status, back.attempt, back.failures, back.crashes) == ("queued", 1, 1, 1)
    assert (back.not_before, back.worker, back.error_code, back.error_message) == (
        NOW + 500,
        None,
        "stalled",
        "no byte",
    )
    assert await store.claim(LINE, 1, NOW + 600) == []
    await store.promote(NOW + 600)
    [again] = await store.claim(LINE, 1, NOW + 600)
    assert await store.put_back(again.job, NOW + 601, failures=2) is not None
    assert (await look(store, job)).failures == 3


async def test_a_queued_job_is_cancelled_at_once(store: JobStore) -> None:
    job = await stored(store)
    cancelled = await store.cancel(job.id, NOW + 5, code="c", message="m")
    expected = job._replace(
        status="cancelled", error_code="c", error_message="m", finished_at=NOW + 5, updated_at=NOW + 5
    )
    assert cancelled == expected == await look(store, job)
    assert await store.claim(LINE, 1, NOW) == []
    assert await result_of(store, job.seq) is None


async def test_a_running_job_that_is_cancelled_keeps_what_it_wrote_and_who_ran_it(store: JobStore) -> None:
    job = await claimed(store)
    cancelled = await store.cancel(job.id, NOW + 5, HALF, job.attempt)
    assert cancelled is not None
    assert cancelled.worker == "one"
    assert await result_of(store, job.seq) == Result(1, HALF)


async def test_output_of_an_older_attempt_is_not_kept_with_a_cancel(store: JobStore) -> None:
    old = await claimed(store)
    await store.put_back(old, NOW)
    await store.claim(LINE, 1, NOW)
    assert await store.cancel(old.id, NOW, HALF, old.attempt) is not None
    assert await result_of(store, old.seq) is None


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED])
async def test_a_final_job_cannot_be_cancelled(store: JobStore, status: Status) -> None:
    job = await finished(store, status=status)
    assert await store.cancel(job.id, NOW + 1, HALF, 1) is None
    assert await look(store, job) == job


async def test_of_a_cancel_and_a_finish_the_first_one_wins(store: JobStore) -> None:
    for is_cancel_first in (True, False):
        job = await claimed(store)
        cancel = store.cancel(job.id, NOW, HALF, 1)
        finish = store.finish(job, DONE, NOW)
        steps = (cancel, finish) if is_cancel_first else (finish, cancel)
        first, second = await asyncio.gather(*steps)
        assert first is not None
        assert second is None
        assert await look(store, job) == first
        assert await result_of(store, job.seq) == Result(1, HALF if is_cancel_first else DONE.segments)


async def test_many_changes_of_one_job_at_once_leave_it_in_one_final_state(store: JobStore, other: JobStore) -> None:
    job = await claimed(store)
    outcomes: list[Job | None] = await asyncio.gather(
        *(store.finish(job, DONE, NOW + number) for number in range(5)),
        *(other.cancel(job.id, NOW + 10 + number, HALF, 1) for number in range(5)),
    )
    [winner] = [outcome for outcome in outcomes if outcome is not None]
    assert await look(store, job) == winner
    result = await result_of(store, job.seq)
    assert result is not None
    assert result.segments == (DONE.segments if winner.status == "completed" else HALF)


async def test_delayed_jobs_become_ready_when_their_time_has_come(store: JobStore) -> None:
    late = await stored(store, not_before=NOW + 20)
    soon = await stored(store, not_before=NOW + 10)
    cancelled = await stored(store, not_before=NOW + 5)
    await store.cancel(cancelled.id, NOW)
    assert await store.queries.next_due() == (NOW + 10, None)
    assert await store.promote(NOW + 9) == []
    [promoted] = await store.promote(NOW + 10)
    assert promoted == soon._replace(not_before=None, updated_at=NOW + 10) == await look(store, soon)
    assert await store.queries.next_due() == (NOW + 20, None)
    assert seqs(await store.claim(LINE, 9, NOW)) == [soon.seq]
    assert seqs(await store.promote(NOW + 99)) == [late.seq]
    assert await store.queries.next_due() == (None, None)


async def test_only_so_many_delayed_jobs_are_made_ready_at_once_the_first_due_first(store: JobStore) -> None:
    jobs = [await stored(store, not_before=NOW + 9 - number) for number in range(3)]
    assert sorted(seqs(await store.promote(NOW + 99, most=2))) == seqs(jobs[1:])
    assert seqs(await store.promote(NOW + 99, most=2)) == [jobs[0].seq]


async def test_a_queued_job_expires_at_its_deadline(store: JobStore) -> None:
    ready = await stored(store, deadline=NOW + 10)
    delayed = await stored(store, deadline=NOW + 11, not_before=NOW + 50)
    later = await stored(store, deadline=NOW + 99)
    [running] = [await claimed(store, deadline=NOW + 10, owner="other")]
    assert await store.queries.next_due() == (NOW + 50, NOW + 10)
    assert await store.expire(NOW + 9) == []
    expired = await store.expire(NOW + 11)
    assert sorted(seqs(expired)) == seqs([ready, delayed])
    assert {(job.status, job.error_code, job.finished_at) for job in expired} == {("failed", "expired", NOW + 11)}
    assert [await look(store, job) for job in sorted(expired)] == sorted(expired)
    assert await look(store, running) == running
    assert await store.queries.next_due() == (None, NOW + 99)
    assert await look(store, later) == later


async def test_the_jobs_of_a_dead_process_follow_their_disconnect_policies(store: JobStore, other: JobStore) -> None:
    nobody = await claimed(other)
    leaving = await claimed(other, on_disconnect="cancel")
    staying = await claimed(other, on_disconnect="finish")
    ours = await claimed(store, on_disconnect="cancel")
    rescued = await store.rescue("two", NOW + 7)
    assert {job.seq: (before, job.status, job.failures, job.caller_at) for job, before in rescued} == {
        nobody.seq: ("processing", "queued", 0, None),
        leaving.seq: ("processing", "cancelled", 0, "two"),
        staying.seq: ("processing", "queued", 0, None),
    }
    for job, _ in rescued:
        assert await look(store, job) == job
    assert (await look(store, leaving)).error_code == "disconnected"
    assert await look(store, ours) == ours
    assert await store.rescue("two", NOW + 8) == []
    assert await other.finish(nobody, DONE, NOW + 9) is None


async def test_jobs_whose_callers_waited_at_a_dead_process_are_cancelled_or_free_for_anyone(
    store: JobStore, other: JobStore
) -> None:
    nobody = await stored(other)
    leaving = await stored(other, on_disconnect="cancel")
    staying = await stored(other, on_disconnect="finish")
    backlog = backlog_of("one")
    assert [backlog.may_claim(job) for job in (nobody, leaving, staying)] == [True, False, False]
    rescued = await store.rescue("two", NOW + 7)
    assert {job.seq: (before, job.status, backlog.may_claim(job)) for job, before in rescued} == {
        leaving.seq: ("queued", "cancelled", False),
        staying.seq: ("queued", "queued", True),
    }
    for job, _ in rescued:
        assert await look(store, job) == job
    assert seqs(await store.claim(LINE, 9, NOW)) == seqs([nobody, staying])


async def test_old_jobs_are_forgotten_with_their_bodies_and_results(store: JobStore) -> None:
    old = [await finished(store, NOW + number) for number in range(3)]
    young = await finished(store, NOW + 50)
    waiting = await stored(store)
    [first] = await store.prune(NOW + 50, most=1)
    assert (first.line, first.status, first.jobs, first.size) == (LINE, "completed", 1, old[0].size)
    assert len(await store.prune(NOW + 50)) == 2
    assert await store.prune(NOW + 50) == []
    for job in old:
        assert await store.queries.standing(job.id) is None
        assert await prompt_of(store, job.seq) == ""
        assert await result_of(store, job.seq) is None
    assert await result_of(store, young.seq) is not None
    assert await look(store, waiting) == waiting
