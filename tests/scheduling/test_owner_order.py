"""Within one model the owner comes first and its options second: no mix of options undoes anybody's turn.

In simulated time; times are milliseconds.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Literal

import pytest

from service.job import Line, runner_key
from service.scheduling import candidates
from service.scheduling.estimates import Estimates
from service.scheduling.scheduler import Reason
from tests.support.placement_simulation import A, B, C, D, SimulatedService, assert_safe
from tests.support.simulated_jobs import SimulatedJob

_LINGER_MS = 100
"""What a load may wait for more jobs of those who were answered just now."""
_LOOKS_MS = 100
"""What looks at the backend may cost in all."""


def with_context(tokens: int) -> str:
    """The runner of the model with a context of its own."""
    return runner_key("a", {"num_ctx": tokens})


class Callers:
    """Owners of one model, each with its own ways: what it asks for, how much, and whether it goes on for ever."""

    def __init__(self, service: SimulatedService, chance: random.Random, costs: tuple[int, int], contexts: int) -> None:
        self.service = service
        self.chance = chance
        self.costs = costs
        self.contexts = contexts
        self.came: dict[str, list[SimulatedJob]] = {}
        """What each owner sent when it came: one of these is its first job."""
        self._fresh = 0

    def come(self, owner: str, jobs: int, *, is_endless: bool, way: str) -> None:
        """So many jobs of this owner arrive now; the next comes with each end when it is endless."""
        self.came[owner] = [self._submit(owner, is_endless=is_endless, way=way) for _ in range(jobs)]

    def _submit(self, owner: str, *, is_endless: bool, way: str) -> SimulatedJob:
        def ended() -> None:
            if is_endless:
                self._submit(owner, is_endless=True, way=way)

        return self.service.submit(self._runner(way), self.chance.randint(*self.costs), ended, owner=owner)

    def _runner(self, way: str) -> str:
        if way == "fresh":
            self._fresh += 1
            return with_context(10_000 + self._fresh)
        if way == "plain":
            return A
        return self.chance.choice((A, *(with_context(1_000 + one) for one in range(self.contexts))))


def waited(job: SimulatedJob, now: int) -> int:
    return (now if job.first_byte is None else job.first_byte) - job.arrived


def others_of(job: SimulatedJob, jobs: list[SimulatedJob], now: int) -> dict[str, int]:
    """The other owners that waited or ran while this job waited, each with its largest job."""
    end = now if job.first_byte is None else job.first_byte
    largest: dict[str, int] = {}
    for other in jobs:
        if other.line.owner != job.line.owner and other.arrived <= end and (other.ended or now) >= job.arrived:
            largest[other.line.owner] = max(other.cost, largest.get(other.line.owner, 0))
    return largest


def assert_bounded(service: SimulatedService, job: SimulatedJob, load_ms: int, wait_ms: int, turns: int) -> None:
    """The largest job and one load of each other owner, its own load, the drain of what runs, and one wait.

    An owner whose job was shorter than it was thought to be may have another of its ``turns``.
    """
    now = service.time.now
    largest = others_of(job, service.jobs, now)
    drain = max(largest.values(), default=0) + load_ms
    bound = sum(turns * (one + load_ms + _LINGER_MS) for one in largest.values()) + load_ms + drain + wait_ms
    assert waited(job, now) <= bound + _LINGER_MS + _LOOKS_MS


@pytest.mark.parametrize("seed", [94, *range(24)])
def test_an_owners_first_job_waits_for_one_job_and_one_load_of_each_other_owner(seed: int) -> None:
    chance = random.Random(seed)
    wait_ms, load_ms = chance.choice((2_000, 10_000, 30_000)), chance.choice((200, 2_000, 10_000))
    service = SimulatedService(max_swap_wait_ms=wait_ms)
    service.add_backend(seats=chance.choice((1, 1, 2, 4)), load_ms=load_ms)
    service.on_event = lambda: assert_safe(service)
    cost, are_equal = chance.choice((50, 1_000, 8_000)), seed % 2 == 0
    costs = (cost, cost) if are_equal else (max(1, cost // 20), 2 * cost)
    callers = Callers(service, chance, costs, chance.randint(1, 3))
    for number in range(chance.randint(2, 9)):
        service.time.at(
            chance.randrange(200_000) if chance.random() < 0.7 else 0,
            partial(
                callers.come,
                f"owner {number}",
                chance.choice((1, 1, 3, 40)),
                is_endless=chance.random() < 0.5,
                way=chance.choice(("fresh", "plain", "mixed")),
            ),
        )
    service.run(250_000)
    for came in callers.came.values():
        first = min(came, key=lambda job: (service.time.now if job.first_byte is None else job.first_byte, job.number))
        assert_bounded(service, first, load_ms, wait_ms, turns=1 if are_equal else 2)


def test_four_hundred_contexts_of_one_owner_keep_anothers_plain_request_no_longer_than_its_turn() -> None:
    service = SimulatedService(max_swap_wait_ms=30_000)
    service.add_backend(seats=1, load_ms=400)
    for number in range(400):
        service.submit(with_context(1_000 + number), 50, owner="many")
    service.run(10_000)
    loads = service.loads
    job = service.submit(A, 50, owner="other")
    service.run(60_000)
    assert job.first_byte is not None
    assert job.waited <= 3 * (400 + 50 + _LINGER_MS)
    sent = service.sent.index(job) + 1
    # Each of them has caused a load.
    assert sent <= loads + 3


def keep_asking(service: SimulatedService, owner: str, runner: Callable[[], str], cost: int) -> None:
    """The owner always has three jobs there, waiting or running."""

    def send() -> None:
        service.submit(runner(), cost, send, owner=owner)

    for _ in range(3):
        send()


Way = Literal["plain", "long", "fresh"]


@pytest.mark.parametrize(
    ("wait_ms", "load_ms", "cost"), [(2_000, 200, 50), (30_000, 10_000, 1_000), (30_000, 2_000, 8_000)]
)
@pytest.mark.parametrize(
    "ways",
    [
        ("plain", "plain", "plain", "plain", "long"),
        ("plain", "long"),
        ("plain", "fresh"),
        ("plain", "plain", "long", "long"),
        ("long", "fresh", "fresh"),
    ],
)
def test_owners_of_any_options_share_the_time_with_the_loads_that_each_alone_has_wanted(
    ways: tuple[Way, ...], wait_ms: int, load_ms: int, cost: int
) -> None:
    service = SimulatedService(max_swap_wait_ms=wait_ms)
    service.add_backend(seats=1, load_ms=load_ms)
    numbers = itertools.count(10_000)
    runners: dict[Way, Callable[[], str]] = {
        "plain": lambda: A,
        "long": lambda: with_context(8_000),
        "fresh": lambda: with_context(next(numbers)),
    }
    for number, way in enumerate(ways):
        keep_asking(service, f"owner {number}", runners[way], cost)
    service.run(max(300_000, 1_500 * cost))
    used = Counter[str]()
    for job in service.jobs:
        if job.ended is not None and job.pick is not None and job.started is not None:
            load = (job.first_byte or job.started) - job.started
            used[job.line.owner] += job.cost + (load if job.pick.pays_load else 0)
    assert min(used.values()) >= 0.9 * max(used.values())


def loads_of(service: SimulatedService) -> list[int]:
    """When each load was begun."""
    return [
        at
        for job, at in zip(service.sent, service.sent_at, strict=True)
        if job.first_byte is not None and job.first_byte > at
    ]


def test_of_two_owners_with_two_contexts_each_forces_one_load_in_a_wait() -> None:
    service = SimulatedService(max_swap_wait_ms=2_000)
    service.add_backend(seats=1, load_ms=200)
    for _ in range(40):
        service.submit(A, 150, owner="one")
        service.submit(with_context(8_000), 150, owner="other")
    service.run()
    begun = loads_of(service)
    assert len(begun) == service.loads > 2
    assert all(third - first >= 2_000 for first, third in zip(begun, begun[2:], strict=False))


@pytest.mark.parametrize(("is_known", "loads"), [(True, 4), (False, 5)])
def test_eighty_jobs_of_four_models_need_four_loads_and_five_where_nothing_is_known(is_known: bool, loads: int) -> None:
    service = SimulatedService(max_swap_wait_ms=2_000)
    service.add_backend(seats=2, load_ms=200, unfit=(A, B, C, D) if is_known else ())
    for number in range(80):
        service.submit((A, B, C, D)[number % 4], 20, owner=f"owner {number % 3}")
    service.run()
    assert service.loads <= loads


def test_eight_runners_of_an_owner_are_in_the_order_and_its_others_wait_behind_them() -> None:
    service = SimulatedService()
    service.add_backend(seats=1, load_ms=1_000, loaded=[A])
    service.submit(A, 100_000, owner="busy")
    service.run(10)
    for number in range(10):
        service.submit(with_context(1_000 + number), 1_000, owner="many")
    reasons = [service.scheduler.explain(Line(with_context(1_000 + number), "many", 0)) for number in range(10)]
    assert reasons[:8] == [Reason.DRAINING, *[Reason.OTHER_OPTIONS] * 7]
    assert reasons[8:] == [Reason.OWN_RUNNERS] * 2
    # What another owner has loaded is in nobody's way.
    assert service.scheduler.explain(Line(A, "many", 0)) is Reason.NEXT
    service.submit(A, 1_000, owner="other")
    assert service.scheduler.explain(Line(A, "other", 0)) is Reason.NEXT
    assert service.scheduler.explain(Line(with_context(1_000), "many", 0)) is Reason.OTHER_OPTIONS
    service.run()
    many = [job.runner for job in service.sent if job.line.owner == "many"]
    assert many == [with_context(1_000 + number) for number in range(10)]


def test_a_load_is_charged_to_the_owner_who_alone_has_wanted_it() -> None:
    service = SimulatedService()
    service.add_backend(seats=1, load_ms=5_000)
    shared = [service.submit(A, 100, owner=owner) for owner in ("one", "two")]
    own = service.submit(with_context(8_000), 100, owner="three")
    service.run()
    assert [job.pick is not None and job.pick.pays_load for job in (*shared, own)] == [True, False, True]
    service.submit(B, 10_000, owner="one")
    service.run(service.time.now + 10)
    shared = [service.submit(A, 100, owner=owner) for owner in ("one", "two")]
    service.run()
    # Both have waited for it.
    assert [job.pick is not None and job.pick.pays_load for job in shared] == [False, False]


def test_a_place_in_the_queue_is_among_the_owners_of_the_model_whatever_their_options() -> None:
    service = SimulatedService()
    service.add_backend(seats=1, load_ms=100, loaded=[A])
    service.submit(A, 5_000, owner="busy")
    service.run(10)
    for number in range(50):
        service.submit(with_context(1_000 + number), 1_000, owner="many")
    service.submit(A, 1_000, owner="other")
    estimates = Estimates(service.backlog, service.pool, service.clock)
    places = [estimates.ahead(Line(with_context(1_000 + number), "many", 0), 0) for number in (0, 1, 49)]
    assert places == [0, 2, 50]
    assert estimates.ahead(Line(A, "other", 0), 0) == 1
    assert service.backlog.waits.is_mixed(Line(A, "other", 0))


def times_called(function: Callable[..., object], action: Callable[[], object]) -> int:
    """How often a function is called meanwhile."""
    calls = 0

    def note(frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code is function.__code__

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


def test_what_is_loaded_is_looked_up_once_for_each_runner_however_many_models_and_backends_there_are() -> None:
    service = SimulatedService()
    for name in ("one", "two", "three"):
        service.add_backend(name, seats=1)
        service.submit(A, 100_000, owner="busy")
    service.run(5_000)
    for owner, number in itertools.product(range(20), range(12)):
        runner = runner_key("abc"[number % 3], {"num_ctx": 1_000 + number})
        service.submit(runner, 1_000, owner=f"owner {owner}")
    assert len(service.backlog.waits.wide) == 20
    # All owners have the same eight in the order.
    assert times_called(candidates.is_anywhere, service.scheduler.next_look) == 8


def test_who_has_led_by_many_seats_waits_no_longer_than_the_swap_wait_for_its_runner_again() -> None:
    service = SimulatedService(max_swap_wait_ms=30_000)
    service.add_backend(seats=4, load_ms=400, loaded=[A])
    for _ in range(4):
        keep_asking(service, "led", lambda: A, 1_000)
    service.run(5_000)
    for number in range(400):
        service.submit(with_context(1_000 + number), 1_000, owner="many")
    service.run(250_000)
    led = [job for job in service.jobs if job.line.owner == "led" and job.first_byte is not None]
    # One wait, a job and a load of the other, and its own load with what is drained for it; and three of its own.
    assert max(job.waited for job in led) <= 30_000 + 3 * (1_000 + 400) + 400 + 3 * 1_000
