"""Positions are those of the real order, and cheap, as turns are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.job import Line, Priority
from service.queue import Order
from tests.support.order_simulation import BOOSTS_MS, RUNNER, SimulatedQueue
from tests.support.order_strategies import (
    JOB,
    claim_sequence,
    mid_work_queues,
)

# Positions


@settings(max_examples=150, deadline=None)
@given(mid_work_queues(), st.booleans())
def test_positions_are_the_real_order_where_jobs_cost_what_is_expected(queue: SimulatedQueue, weighted: bool) -> None:
    order = queue.order
    if weighted:
        queue.weights.update(zip(queue.waiting, (2.0, 0.5, 3.0), strict=False))
    ranks = {
        (line, rank): order.ahead(line, rank, queue.waiting)
        for owner, lines in queue.waiting.items()
        for priority, jobs in lines.items()
        for line in [Line(RUNNER, owner, priority)]
        for rank in range(jobs)
    }
    seen: Counter[Line] = Counter()
    for place, line in enumerate(claim_sequence(order, queue.waiting, queue.now)):
        assert ranks[line, seen[line]] == place
        seen[line] += 1


def test_the_position_of_a_job_that_nobody_counted_yet_is_behind_its_owners_others() -> None:
    queue = SimulatedQueue()
    queue.submit_all("owner", [JOB] * 4)
    assert queue.order.ahead(Line(RUNNER, "owner", 0), 4, queue.waiting) == 4
    assert queue.order.ahead(Line("unknown", "owner", 0), 2, {}) == 2
    queue.submit_all("other", [JOB] * 4)
    assert queue.order.ahead(Line(RUNNER, "owner", 0), 4, queue.waiting) == 8


@settings(max_examples=10, deadline=None)
@given(st.integers(65, 150), st.integers(0, 300), st.booleans(), st.randoms())
def test_positions_among_very_many_owners_are_about_right(
    owners: int, claims: int, is_mixed: bool, chance: random.Random
) -> None:
    queue = SimulatedQueue(4)
    for number in range(owners):
        costs = [chance.randint(1, 20_000) if is_mixed else JOB for _ in range(chance.choice((3, 4, 20)))]
        queue.submit_all(f"owner {number}", costs, chance.choice(tuple(Priority)) if is_mixed else Priority.NORMAL)
    queue.run(claims=claims)
    late = queue.submit("late", JOB)
    ranks = {
        (line, rank): queue.order.ahead(line, rank, queue.waiting)
        for owner, lines in queue.waiting.items()
        for priority, jobs in lines.items()
        for line in [Line(RUNNER, owner, priority)]
        for rank in range(0, jobs, 3)
    }
    present = len(queue.waiting)
    seen: Counter[Line] = Counter()
    for place, line in enumerate(claim_sequence(queue.order, queue.waiting, queue.now)):
        rank = ranks.get((line, seen[line]))
        if rank is not None:
            assert abs(rank - place) <= max(place, present) / 6
        if line == late.line and not is_mixed:
            assert rank == place
        seen[line] += 1


# What a turn costs


class _CountingDict(dict[str, dict[int, int]]):
    looks = 0

    def get(self, owner: str, default: Any = None) -> Any:
        self.looks += 1
        return super().get(owner, default)

    def __getitem__(self, owner: str) -> dict[int, int]:
        self.looks += 1
        return super().__getitem__(owner)

    def __iter__(self) -> Iterator[str]:
        for owner in super().__iter__():
            self.looks += 1
            yield owner

    def items(self) -> Any:
        self.looks += len(self)
        return super().items()


@pytest.mark.parametrize("jobs", [1, 1_000])
def test_a_turn_among_a_thousand_owners_looks_at_a_few_of_them(jobs: int) -> None:
    order = Order(BOOSTS_MS)
    waiting = _CountingDict()
    for number in range(1_000):
        owner = f"owner {number}"
        order.begin_waiting(Line(RUNNER, owner, 0), 1, waiting)
        waiting[owner] = {0: jobs}
    order.pick(RUNNER, waiting)
    waiting.looks = 0
    claims = []
    for _ in range(3_000):
        line = order.pick(RUNNER, waiting)
        assert line is not None
        claims.append((line, order.charge(line, 2)))
        if len(claims) >= 5:
            order.correct(*claims.pop(0), 1_000.0, is_typical=True)
    assert waiting.looks < 10 * 3_000


def test_a_position_among_a_thousand_owners_looks_at_a_few_of_them() -> None:
    order = Order(BOOSTS_MS)
    waiting = _CountingDict()
    for number in range(1_000):
        owner = f"owner {number}"
        order.begin_waiting(Line(RUNNER, owner, 0), 1, waiting)
        waiting[owner] = {0: 50}
    waiting.looks = 0
    for number in range(1_000):
        order.ahead(Line(RUNNER, f"owner {number}", 0), 49, waiting)
    assert waiting.looks < 1_000 * 50
