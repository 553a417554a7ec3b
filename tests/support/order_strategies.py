"""What the properties of the order are tried on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from service.job import Line, Priority
from service.queue import Order
from tests.support.order_simulation import RUNNER, SimulatedQueue

JOB = 10_000
HOUR = 3_600_000
PRIORITIES = st.sampled_from([Priority.HIGH, Priority.NORMAL, Priority.LOW])
COSTS = st.integers(1_000, 60_000)
SEATS = st.integers(1, 4)

quick = settings(max_examples=30, deadline=None)


@st.composite
def job_lists(draw: Any) -> dict[str, list[int]]:
    """Owners and what their jobs cost, again and again."""
    owners = draw(st.integers(2, 5))
    return {f"owner {number}": draw(st.lists(COSTS, min_size=1, max_size=4)) for number in range(owners)}


@st.composite
def mid_work_queues(draw: Any) -> SimulatedQueue:
    """A queue in the middle of its work: several owners, priorities, leads, corrections; nothing runs."""
    queue = SimulatedQueue(draw(SEATS))
    chance = random.Random(draw(st.integers(0, 1 << 30)))
    used = draw(st.lists(PRIORITIES, min_size=1, max_size=4))
    for number in range(draw(st.integers(1, 6))):
        queue.submit_all(f"owner {number}", [chance.randint(1, 30_000) for _ in range(40)], chance.choice(used))
        queue.submit_all(f"owner {number}", [chance.randint(1, 30_000) for _ in range(10)], chance.choice(used))
    queue.run(claims=draw(st.integers(1, 60)))
    queue.seats = 0
    queue.run()
    return queue


def claim_sequence(order: Order, waiting: Mapping[str, Mapping[int, int]], now: int) -> Iterator[Line]:
    """The lines whose jobs go next when nobody comes and every job costs what is expected."""
    left = {owner: dict(lines) for owner, lines in waiting.items()}
    while (line := order.pick(RUNNER, left)) is not None:
        order.charge(line, now)
        left[line.owner][line.priority] -= 1
        if not left[line.owner][line.priority]:
            del left[line.owner][line.priority]
        if not left[line.owner]:
            del left[line.owner]
        yield line
