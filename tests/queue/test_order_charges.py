"""What a job costs its owner, over restarts too, and what may be forgotten."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.job import Line, Priority
from service.queue import ModelRow, Order
from tests.support.order_simulation import BOOSTS_MS, RUNNER, SimulatedQueue
from tests.support.order_strategies import (
    JOB,
    SEATS,
    claim_sequence,
    job_lists,
    mid_work_queues,
    quick,
)

# What a job costs


def test_a_job_cancelled_while_queued_costs_nothing() -> None:
    queue = SimulatedQueue(expected_ms=JOB)
    queue.keep_waiting("other", lambda: JOB)
    jobs = queue.submit_all("owner", [JOB] * 100)
    queue.run(claims=1)
    for job in jobs[1:-1]:
        queue.cancel(job)
    queue.run(claims=4)
    assert [job.owner for job in queue.claims] == ["other", "owner", "other", "owner"]


def test_a_job_cancelled_while_it_runs_costs_what_it_used() -> None:
    queue = SimulatedQueue(expected_ms=JOB)
    jobs = queue.submit_all("owner", [JOB] * 20)
    queue.keep_waiting("other", lambda: JOB)
    queue.at(1_000, lambda: queue.cancel(jobs[0]))
    queue.run(until=1_000 + 19 * JOB)
    # Nine more tenths of a job were left to it, so that it is ahead in jobs by what it lacks in time.
    assert queue.served("owner") - queue.served("other") in (-9_000, 1_000)


def test_a_pick_that_found_no_job_costs_nothing() -> None:
    order = Order(BOOSTS_MS)
    order.restore([ModelRow(RUNNER, 0.0, JOB, 8)], [])
    waiting: dict[str, dict[int, int]] = {}
    for owner in ("first", "second"):
        order.begin_waiting(Line(RUNNER, owner, 0), 1, waiting)
        waiting[owner] = {0: 5}
    for _ in range(100):
        line = order.pick(RUNNER, waiting)
        assert line is not None
        order.refund(line, order.charge(line, 2))
    before, after = order.share_row(Line(RUNNER, "first", 0)), order.share_row(Line(RUNNER, "second", 0))
    assert (before.served, after.served) == (0.0, 0.0)
    assert order.model_row(RUNNER).reached == JOB


def test_lines_in_doubt_are_passed_over_and_keep_their_turn() -> None:
    order = Order(BOOSTS_MS)
    waiting: dict[str, dict[int, int]] = {}
    for owner in ("first", "second"):
        order.begin_waiting(Line(RUNNER, owner, 0), 1, waiting)
        waiting[owner] = {0: 5}
    doubtful = {Line(RUNNER, "first", 0)}
    assert order.pick(RUNNER, waiting, doubtful) == Line(RUNNER, "second", 0)
    assert order.pick(RUNNER, waiting) == Line(RUNNER, "first", 0)
    assert order.pick(RUNNER, {"first": {0: 5}}, doubtful) is None
    assert order.pick(RUNNER, waiting, doubtful | {Line(RUNNER, "second", 0)}) is None


@quick
@given(mid_work_queues(), st.randoms())
def test_passing_over_lines_is_as_if_they_were_not_there(queue: SimulatedQueue, chance: random.Random) -> None:
    most = len(queue.claims) + 15
    while queue.waiting and len(queue.claims) < most:
        lines = [Line(RUNNER, owner, one) for owner, lines in queue.waiting.items() for one in lines]
        without = set(chance.sample(lines, chance.randint(0, len(lines))))
        left = {
            owner: {one: jobs for one, jobs in lines.items() if Line(RUNNER, owner, one) not in without}
            for owner, lines in queue.waiting.items()
        }
        fresh = Order(BOOSTS_MS)
        fresh.restore(*queue.rows())
        expected = fresh.pick(RUNNER, {owner: lines for owner, lines in left.items() if lines})
        assert queue.order.pick(RUNNER, queue.waiting, without) == expected
        queue.seats = 1
        queue.run(claims=len(queue.claims) + 1)
        queue.seats = 0
        queue.run()


def test_an_owner_that_was_counted_without_a_word_is_found_all_the_same() -> None:
    order = Order(BOOSTS_MS)
    order.begin_waiting(Line(RUNNER, "gone", 0), 1, {})
    assert order.pick(RUNNER, {"silent": {0: 1}, "other": {0: 1}}) is not None


@pytest.mark.parametrize("expected", [None, 5_000, 60_000])
def test_a_wrong_estimate_delays_nobody_by_more_than_itself(expected: float | None) -> None:
    """Jobs of ten milliseconds; before any has ended nobody knows."""
    queue = SimulatedQueue(seats=4, expected_ms=expected)
    queue.keep_waiting("first", lambda: 10)
    queue.run(until=5)
    job = queue.submit("second", 10)
    queue.run(until=100_000)
    assert job.waited <= 5 + (expected or 0)


def test_the_first_end_teaches_and_one_long_job_does_not_make_all_look_long() -> None:
    queue = SimulatedQueue()
    queue.submit_all("owner", [1_000] * 20 + [60_000])
    queue.run(until=1_000)
    assert queue.order.expected_ms(RUNNER) == 1_000
    queue.run()
    assert queue.order.expected_ms(RUNNER) == 1_000 + 59_000 / 8
    assert queue.order.expected_ms("never used") is None


def test_what_ended_early_teaches_nothing_and_what_ran_long_does() -> None:
    queue = SimulatedQueue(expected_ms=1_000)
    short, long = queue.submit_all("owner", [20_000, 20_000])
    queue.at(10, lambda: queue.cancel(short))
    queue.run(until=10)
    assert queue.order.expected_ms(RUNNER) == 1_000
    queue.at(9_010, lambda: queue.cancel(long))
    queue.run()
    assert queue.order.expected_ms(RUNNER) == 2_000
    order = Order(BOOSTS_MS)
    line = Line(RUNNER, "owner", 0)
    order.correct(line, order.charge(line, 1), 1.0, is_typical=False)
    assert order.expected_ms(RUNNER) is None


# Runners and restarts


@quick
@given(job_lists(), SEATS, st.integers(0, 1000))
def test_what_one_model_is_used_for_delays_nobodys_turn_on_another(
    costs: dict[str, list[int]], seats: int, seed: int
) -> None:
    def played(*, with_other: bool) -> list[tuple[str, int | None]]:
        queue = SimulatedQueue(seats)
        other = SimulatedQueue(seats, runner="other:latest")
        other.order = queue.order
        chance = random.Random(seed)
        for owner, mine in costs.items():
            queue.keep_waiting(owner, itertools.cycle(mine).__next__)
            if with_other:
                other.keep_waiting(owner, lambda: chance.randint(1, 60_000), lambda: chance.choice(list(Priority)))
        for step in range(1, 40):
            queue.run(until=step * 5_000)
            other.run(until=step * 5_000)
        return [(job.owner, job.started) for job in queue.claims]

    assert played(with_other=True) == played(with_other=False)


@quick
@given(mid_work_queues(), st.randoms())
def test_the_order_outlives_a_restart(queue: SimulatedQueue, chance: random.Random) -> None:
    restored = Order(BOOSTS_MS)
    restored.restore(*queue.rows())
    lines = [Line(RUNNER, owner, one) for owner, lines in queue.waiting.items() for one in lines]
    chance.shuffle(lines)
    for line in lines:
        restored.keep_waiting(line, queue.now)
    assert list(claim_sequence(restored, queue.waiting, queue.now)) == list(
        claim_sequence(queue.order, queue.waiting, queue.now)
    )


@quick
@given(mid_work_queues(), st.integers(0, 300_000), st.integers(0, 300_000))
def test_other_leads_rank_what_waits_as_if_they_had_always_been_there(
    queue: SimulatedQueue, high: int, low: int
) -> None:
    boosts_ms = {1: high, 0: 0, -1: -low}
    fresh = Order(boosts_ms)
    fresh.restore(*queue.rows())
    for owner, lines in queue.waiting.items():
        for one in lines:
            fresh.keep_waiting(Line(RUNNER, owner, one), queue.now)
    queue.order.set_boosts(boosts_ms)
    assert list(claim_sequence(queue.order, queue.waiting, queue.now)) == list(
        claim_sequence(fresh, queue.waiting, queue.now)
    )


def test_what_is_charged_for_running_jobs_is_not_stored() -> None:
    queue = SimulatedQueue(seats=3, expected_ms=JOB)
    queue.submit_all("owner", [JOB, 5 * JOB, 5 * JOB])
    queue.run(until=JOB)
    row = queue.order.share_row(Line(RUNNER, "owner", 0))
    assert (row.served, row.normal) == (JOB, JOB)
    assert queue.order.model_row(RUNNER).reached == 3 * JOB


def test_who_has_no_row_begins_after_a_restart_where_service_had_got_to() -> None:
    order = Order(BOOSTS_MS)
    order.restore([ModelRow(RUNNER, 70_000.0, JOB, 8)], [])
    order.keep_waiting(Line(RUNNER, "newcomer", 0), 1)
    assert order.share_row(Line(RUNNER, "newcomer", 0)).served == 70_000.0


# Forgetting


@quick
@given(mid_work_queues(), st.integers(0, 1000))
def test_whoever_is_forgotten_is_the_same_as_a_newcomer(queue: SimulatedQueue, seed: int) -> None:
    gone = next(iter(queue.waiting), None)
    if gone is None:
        return
    waiting = {owner: lines for owner, lines in queue.waiting.items() if owner != gone}
    kept = Order(BOOSTS_MS)
    kept.restore(*queue.rows())
    for order in (queue.order, kept):
        for owner, lines in waiting.items():
            for one in lines:
                order.keep_waiting(Line(RUNNER, owner, one), queue.now)
    _, forgotten = queue.order.forget_idle({RUNNER: waiting})
    if (RUNNER, gone) not in forgotten:
        row = kept.share_row(Line(RUNNER, gone, 0))
        assert row.served > kept.model_row(RUNNER).reached
        return
    if not waiting:
        return
    sequences = []
    for order in (queue.order, kept):
        order.begin_waiting(Line(RUNNER, gone, 0), queue.now + 1, waiting)
        sequences.append(list(claim_sequence(order, waiting | {gone: {0: 3}}, queue.now + 1)))
    assert sequences[0] == sequences[1]


def test_shares_stay_few_however_many_owners_come_and_go() -> None:
    queue = SimulatedQueue(seats=2)
    queue.keep_waiting("stays", lambda: 7_000)
    names = itertools.count()
    for _ in range(300):
        queue.submit(f"owner {next(names)}", 3_000)
        queue.run(until=queue.now + 10_000)
        queue.order.forget_idle({RUNNER: queue.waiting})
    _, shares = queue.rows()
    assert len(shares) < 20


def test_what_runs_or_waits_is_not_forgotten() -> None:
    queue = SimulatedQueue()
    queue.submit_all("both", [JOB, JOB])
    queue.submit("waits", JOB)
    queue.run(until=1)
    queue.order.forget_idle({RUNNER: queue.waiting})
    assert {row.owner for row in queue.rows()[1]} == {"both", "waits"}
    queue.run()
    assert queue.order.forget_idle({}) == ([], [(RUNNER, "both"), (RUNNER, "waits")])
    assert queue.rows()[1] == []


def test_runners_that_nobody_uses_are_forgotten_beyond_a_thousand() -> None:
    order = Order(BOOSTS_MS)
    for number in range(1_500):
        line = Line(f"model:{number}", "owner", 0)
        order.begin_waiting(line, 1, {})
        order.correct(line, order.charge(line, 1), 10.0, is_typical=True)
    runners, shares = order.forget_idle({})
    assert len(runners) == 500
    assert len(shares) == 1_500
    assert sum(order.expected_ms(f"model:{number}") is not None for number in range(1_500)) == 1_000


def test_changes_that_could_not_be_stored_are_given_again_with_the_next_and_not_before() -> None:
    order = Order(BOOSTS_MS)
    lines = [Line(RUNNER, owner, 0) for owner in ("one", "two")]
    for line in lines:
        order.begin_waiting(line, 0, {})
        order.correct(line, order.charge(line, 0), 1_000, is_typical=True)
    changed = order.take_changes()
    assert changed == lines
    order.put_back(changed)
    assert not order.has_changed.is_set()
    order.correct(lines[0], order.charge(lines[0], 0), 1_000, is_typical=True)
    assert order.has_changed.is_set()
    assert sorted(order.take_changes()) == lines
    assert order.take_changes() == []


def test_a_newcomer_begins_one_job_behind_whoever_is_next_where_others_have_got_far_on_a_loaded_runner() -> None:
    loaded, unloaded = RUNNER, f'{RUNNER} {{"num_ctx":8192}}'
    order = Order(BOOSTS_MS)
    order.restore([ModelRow(RUNNER, 0.0, JOB, 8)], [])
    far, behind, newcomer = Line(loaded, "far", 0), Line(unloaded, "behind", 0), Line(loaded, "newcomer", 0)
    waiting: dict[str, dict[int, int]] = {}
    for line in (far, behind):
        order.begin_waiting(line, 0, waiting)
        waiting[line.owner] = {0: 1}
    for _ in range(20):
        order.charge(far, 0)
    place = order.ahead(newcomer, 0, waiting)
    order.begin_waiting(newcomer, 0, waiting)
    waiting[newcomer.owner] = {0: 1}
    assert order.place(RUNNER, "newcomer", {0: 1})[0] == order.place(RUNNER, "behind", {0: 1})[0] + JOB
    assert order.ahead(newcomer, 0, waiting) == place == 1
