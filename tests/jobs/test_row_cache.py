"""Ranks of waiting jobs that are remembered between polls, while their line is drained."""

from __future__ import annotations

import asyncio

from service.job import Job, Line, Outcome, Status
from service.jobs.row_cache import RowCache
from service.queue.ranks import Ranks
from service.store.job_filters import Filter
from service.store.job_statements import EXACT_RANK
from tests.support.running import service_in_process

LINE = Line("llama3.2:latest", "me", 0)


def waiting(seq: int) -> Job:
    values = dict.fromkeys(Job._fields)
    values |= {"seq": seq, "id": f"job-{seq}", "runner": LINE.runner, "owner": LINE.owner, "priority": LINE.priority}
    return Job(**values)  # type: ignore[arg-type]


def test_a_remembered_rank_falls_with_every_claim_of_its_line_and_never_below_zero() -> None:
    recent, ranks, job = RowCache(is_enabled=True), Ranks(is_enabled=True), waiting(10)
    recent.put(job, 9, 0, ranks.stamp(LINE))
    assert recent.rank(job, 0) == 9
    for _ in range(4):
        ranks.take(LINE)
        ranks.take(LINE._replace(owner="you"))
    assert recent.rank(job, 0) == 5
    for _ in range(50):
        ranks.take(LINE)
    assert recent.rank(job, 0) == 0


def test_a_rank_is_counted_anew_after_a_while() -> None:
    recent, job = RowCache(is_enabled=True), waiting(10)
    recent.put(job, 9, 0, Ranks(is_enabled=True).stamp(LINE))
    assert (recent.rank(job, 20_000), recent.rank(job, 60_000)) == (9, None)
    assert recent.get(job.id) == job


def test_a_rank_falls_by_what_was_taken_since_it_was_known() -> None:
    recent, ranks, job = RowCache(is_enabled=True), Ranks(is_enabled=True), waiting(10)
    ranks.take(LINE)
    stamp = ranks.stamp(LINE)
    ranks.take(LINE)
    recent.put(job, 9, 0, stamp)
    assert recent.rank(job, 0) == 8


def test_what_the_database_counts_is_believed_only_while_nothing_moves() -> None:
    ranks = Ranks(is_enabled=True)
    before = ranks.calm()
    assert before is not None
    assert ranks.calm() == before
    ranks.take(LINE)
    assert ranks.calm() is None
    ranks.taken(LINE, 1, 1)
    assert ranks.calm() not in (None, before)
    before = ranks.calm()
    ranks.disturb(LINE)
    assert ranks.calm() not in (None, before)


def test_a_claim_that_found_less_has_every_rank_counted_anew() -> None:
    recent, ranks, job = RowCache(is_enabled=True), Ranks(is_enabled=True), waiting(10)
    recent.put(job, 9, 0, ranks.stamp(LINE))
    ranks.take(LINE)
    ranks.take(LINE)
    ranks.taken(LINE, 2, 1)
    assert recent.rank(job, 0) is None


def test_a_rank_is_counted_anew_when_its_line_was_disturbed() -> None:
    recent, ranks, job = RowCache(is_enabled=True), Ranks(is_enabled=True), waiting(10)
    recent.put(job, 9, 0, ranks.stamp(LINE))
    ranks.disturb(LINE._replace(owner="you"))
    assert recent.rank(job, 0) == 9
    ranks.disturb(LINE)
    assert recent.rank(job, 0) is None
    recent.put(job, 8, 0, ranks.stamp(LINE))
    assert recent.rank(job, 0) == 8


def test_no_rank_is_believed_any_more_when_more_lines_moved_than_are_remembered() -> None:
    recent, ranks, job = RowCache(is_enabled=True), Ranks(is_enabled=True), waiting(10)
    recent.put(job, 9, 0, ranks.stamp(LINE))
    for number in range(5_000):
        ranks.take(LINE._replace(owner=f"owner {number}"))
    assert recent.rank(job, 0) is None
    assert recent.get(job.id) == job


async def test_positions_follow_what_leaves_from_the_middle() -> None:
    async with service_in_process(seats=1) as service:
        stalled = service.stall()
        await service.submit()
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        first, second, third, fourth = [await service.submit() for _ in range(4)]

        async def places(*job_ids: str) -> list[int | None]:
            return [(await service.jobs.views.view(job_id)).position for job_id in job_ids]

        assert await places(first, second, third, fourth) == [1, 2, 3, 4]
        await service.jobs.submission.cancel(second)
        assert await places(first, third, fourth) == [1, 2, 3]
        await service.jobs.submission.cancel(third)
        assert await places(fourth, first) == [2, 1]
        stalled.release()


def test_nothing_is_remembered_where_others_may_change_the_rows() -> None:
    recent, job = RowCache(is_enabled=False), waiting(10)
    recent.put(job, 9, 0, Ranks(is_enabled=False).stamp(LINE))
    assert recent.get(job.id) is None


def test_a_row_that_was_read_replaces_an_older_one_only() -> None:
    recent = RowCache(is_enabled=True)
    running = waiting(10)._replace(status=Status.PROCESSING, attempt=1)
    recent.learn(running)
    assert recent.get(running.id) is None
    recent.put(running)
    done = running._replace(status=Status.COMPLETED)
    recent.learn(done)
    recent.learn(running)
    assert recent.get(running.id) == done


async def test_who_has_seen_an_outcome_in_the_list_sees_it_everywhere() -> None:
    async with service_in_process() as service:
        stalled = service.stall()
        job_id = await service.submit()
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        job = (await service.jobs.views.view(job_id)).job
        # On disk, and not announced yet.
        assert await service.jobs.submission._store.finish(job, Outcome(Status.COMPLETED), job.created_at)
        page = await service.jobs.views.page(Filter(), 1, 0)
        assert [row.status for row in page.jobs] == ["completed"]
        assert (await service.jobs.views.view(job_id)).job.status == "completed"
        stalled.release()


async def test_a_distant_job_is_looked_up_once_a_second_for_its_whole_line() -> None:
    async with service_in_process(seats=1) as service:
        stalled = service.stall()
        await service.submit()
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        waiting_ids = await asyncio.gather(*(service.submit() for _ in range(EXACT_RANK + 9)))
        views = [await service.jobs.views.view(job_id) for job_id in waiting_ids]
        *_, before, last = sorted(views, key=lambda view: view.job.seq)
        assert (last.position, last.is_exact) == (EXACT_RANK + 9, False)
        assert service.jobs.views.remembered_view(before.job.id) == before
        stalled.release()
