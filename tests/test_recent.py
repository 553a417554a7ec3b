"""Ranks of waiting jobs that are remembered between polls, while their line is drained."""

from __future__ import annotations

from service.job import Job, Line
from service.jobs.recent import Recent

LINE = Line("llama3.2:latest", "me", 0)


def waiting(seq: int) -> Job:
    values = dict.fromkeys(Job._fields)
    values |= {"seq": seq, "id": f"job-{seq}", "runner": LINE.runner, "owner": LINE.owner, "priority": LINE.priority}
    return Job(**values)  # type: ignore[arg-type]


def test_a_remembered_rank_falls_with_every_claim_of_its_line_and_never_below_zero() -> None:
    recent, job = Recent(is_enabled=True), waiting(10)
    recent.put(job, 9, now=0)
    assert recent.rank(job, 0) == 9
    recent.take(LINE, 4)
    recent.take(LINE._replace(owner="you"), 100)
    assert recent.rank(job, 0) == 5
    recent.take(LINE, 50)
    assert recent.rank(job, 0) == 0


def test_a_rank_is_counted_anew_after_a_while() -> None:
    recent, job = Recent(is_enabled=True), waiting(10)
    recent.put(job, 9, now=0)
    assert recent.rank(job, 60_000) is None
    assert recent.get(job.id) == job


def test_nothing_is_remembered_where_others_may_change_the_rows() -> None:
    recent, job = Recent(is_enabled=False), waiting(10)
    recent.put(job, 9, now=0)
    assert recent.get(job.id) is None
