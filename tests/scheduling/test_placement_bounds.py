"""No model waits for ever: not in Ollama, and not here."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.job import model_of_runner
from tests.support.ollama_in_time import Fits, any_two, one_at_a_time
from tests.support.placement_simulation import (
    A_LONG,
    CLOUD,
    PROBE_MS,
    SWAP_WAIT,
    A,
    B,
    C,
    D,
    SimulatedService,
    assert_safe,
)

quick = settings(max_examples=30, deadline=None)


def _by_memory(sizes: dict[str, int], memory: int) -> Fits:
    def fits(models: Collection[str]) -> bool:
        return len(models) <= 1 or sum(sizes.get(model, 1) for model in models) <= memory

    return fits


def _submit_many(service: SimulatedService, runner: str, cost: int, jobs: int) -> None:
    for _ in range(jobs):
        service.submit(runner, cost)


# The deadlock of wire contract 4.3


class Scheduling(RuleBasedStateMachine):
    """Anything may arrive, be evicted, fail to load or go away: never may Ollama wait for a runner that we keep busy,
    and in the end every job has ended.
    """

    runners = (A, A_LONG, B, C, D, CLOUD)

    @initialize(
        fits=st.sampled_from([one_at_a_time, any_two, _by_memory({"a:latest": 3, "b:latest": 2}, 4)]),
        loaded=st.lists(st.sampled_from([A, A_LONG, B]), max_size=1),
        seats=st.integers(1, 5),
        backends=st.integers(1, 2),
        load_ms=st.sampled_from([0, 700, 20_000]),
    )
    def begin(self, fits: Fits, loaded: list[str], seats: int, backends: int, load_ms: int) -> None:
        self.service = SimulatedService(max_swap_wait_ms=5_000)
        for number in range(backends):
            self.service.add_backend(str(number), fits=fits, loaded=loaded, seats=seats, load_ms=load_ms)
        self.service.on_event = lambda: assert_safe(self.service)

    @rule(runner=st.sampled_from(runners), cost=st.integers(1, 30_000), jobs=st.integers(1, 6))
    def submit(self, runner: str, cost: int, jobs: int) -> None:
        for _ in range(jobs):
            self.service.submit(runner, cost)

    @rule(milliseconds=st.sampled_from([1, 100, 3_000, 20_000]))
    def wait(self, milliseconds: int) -> None:
        self.service.run(self.service.time.now + milliseconds)

    @rule(model=st.sampled_from([model_of_runner(runner) for runner in runners]))
    def evict(self, model: str) -> None:
        for backend in self.service.backends:
            backend.ollama.evict(model)

    @rule(runner=st.sampled_from([A, B]))
    def fail_next_load(self, runner: str) -> None:
        self.service.backends[0].ollama.failing_loads.add(runner)

    @precondition(lambda self: len(self.service.backends) > 1)
    @rule()
    def toggle(self) -> None:
        backend = self.service.backends[1]
        backend.is_available = not backend.is_available

    @invariant()
    def is_safe(self) -> None:
        if hasattr(self, "service"):
            assert_safe(self.service)

    def teardown(self) -> None:
        if hasattr(self, "service"):
            self.service.run()
            assert all(not backend.placement.in_flight for backend in self.service.backends)


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)


def test_the_simulated_scheduler_starves_a_model_under_naive_dispatch() -> None:
    service = SimulatedService(is_naive=True)
    backend = service.add_backend(seats=5)
    for cost in (300, 400, 500, 600):
        service.keep_busy(A, cost, callers=1)
    service.run(3_000)
    job = service.submit(B, 400)
    service.run(200_000)
    assert job.first_byte is None
    assert {loaded for _, loaded in backend.ollama.hazards} == {A}


def test_callers_that_keep_one_model_busy_do_not_starve_a_request_for_another() -> None:
    service = SimulatedService()
    service.add_backend(seats=5, load_ms=5_000)
    service.keep_busy(A, 400, callers=4)
    service.run(10_000)
    job = service.submit(B, 400)
    service.run(100_000)
    # Overdue, drained, loaded.
    assert job.waited <= SWAP_WAIT + 400 + 5_000
    # And A comes back, after its own wait.
    assert service.jobs[-1].runner == A
    assert service.loads == 3


def test_callers_beyond_the_seats_do_not_starve_a_request_for_another() -> None:
    service = SimulatedService()
    service.add_backend(seats=2)
    service.keep_busy(A, 400, callers=10)
    service.run(5_000)
    job = service.submit(B, 400)
    service.run(50_000)
    assert job.waited <= SWAP_WAIT + 400 + 1_000


@quick
@given(
    st.integers(2, 4),
    st.integers(1, 4),
    st.sampled_from([50, 1_000, 10_000]),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60_000), st.integers(1, 20)), max_size=12),
    st.integers(500, 4_000),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_a_model_waits_no_longer_than_its_bound(
    models: int,
    seats: int,
    load_ms: int,
    arrivals: list[tuple[int, int, int]],
    cost: int,
    is_busy: list[bool],
) -> None:
    service = SimulatedService()
    service.add_backend(seats=seats, load_ms=load_ms)
    names = (A, B, C, D)[:models]
    for runner, busy in zip(names, is_busy, strict=False):
        if busy:
            service.keep_busy(runner, cost, callers=seats + 1)
    for number, time, jobs in arrivals:
        if number < models:
            service.time.at(time, partial(_submit_many, service, names[number], cost, jobs))
    service.on_event = lambda: assert_safe(service)
    service.run(150_000)
    bound = SWAP_WAIT + (models - 1) * (load_ms + cost + load_ms) + models * 10 * PROBE_MS
    for runner in names:
        before = 0
        for job in (job for job in service.jobs if job.runner == runner):
            begun = service.time.now if job.first_byte is None else job.first_byte
            assert begun - max(job.arrived, before) <= max(bound, cost + load_ms)
            if job.started is None:
                break
            before = job.started


def test_two_old_backlogs_do_not_take_turns_before_a_newcomer() -> None:
    service = SimulatedService()
    service.add_backend(seats=1, load_ms=2_000)
    for _ in range(300):
        service.submit(A, 1_000)
        service.submit(B, 1_000)
    service.run(100_000)
    job = service.submit(C, 1_000)
    service.run(200_000)
    assert job.waited <= SWAP_WAIT + 2 * (2_000 + 1_000 + 2_000)
