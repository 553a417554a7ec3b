"""Which runner a backend serves next: simulated time, the real placement, a model of Ollama's scheduler."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Collection
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.backend.placement import Placement, is_remote
from service.job import model_of_runner, runner_key
from tests.placement_simulation import (
    PROBE_MS,
    Fits,
    SimulatedBackend,
    SimulatedJob,
    SimulatedService,
    any_two,
    one_at_a_time,
)

A, B, C, D = (runner_key(name) for name in "abcd")
A_LONG = runner_key("a", {"num_ctx": 32_768})
CLOUD = runner_key("big:cloud")
SWAP_WAIT = 30_000

quick = settings(max_examples=60, deadline=None)


def _by_memory(sizes: dict[str, int], memory: int) -> Fits:
    def fits(models: Collection[str]) -> bool:
        return len(models) <= 1 or sum(sizes.get(model, 1) for model in models) <= memory

    return fits


def _submit_many(service: SimulatedService, runner: str, cost: int, jobs: int) -> None:
    for _ in range(jobs):
        service.submit(runner, cost)


def _assert_safe(service: SimulatedService) -> None:
    """No job of a runner is with Ollama together with one that it could wait for."""
    for backend in service.backends:
        busy = [runner for runner in backend.placement.in_flight if not is_remote(runner)]
        models = {model_of_runner(runner) for runner in busy}
        assert len(models) == len(busy)
        assert backend.ollama.fits(models)
        assert backend.ollama.hazards == []


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
        self.service.on_event = lambda: _assert_safe(self.service)

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
            _assert_safe(self.service)

    def teardown(self) -> None:
        if hasattr(self, "service"):
            self.service.run()
            assert all(not backend.placement.in_flight for backend in self.service.backends)


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_the_simulated_scheduler_starves_a_model_under_naive_dispatch() -> None:
    service = SimulatedService(is_naive=True)
    backend = service.add_backend(seats=5)
    for cost in (300, 400, 500, 600):
        service.keep_busy(A, cost, callers=1)
    service.run(3_000)
    job = service.submit(B, 400)
    service.run(200_000)
    assert job.first_byte is None
    assert backend.ollama.hazards == [(B, A)]


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
    service.on_event = lambda: _assert_safe(service)
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


# Few loads


def _one_after_another(service: SimulatedService, runners: list[str], cost: int, at_once: int) -> None:
    left = iter(runners)

    def send() -> None:
        runner = next(left, None)
        if runner is not None:
            service.submit(runner, cost, send)

    for _ in range(at_once):
        send()
    service.run()


@pytest.mark.parametrize("seats", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("cost", [20, 300])
def test_sixty_requests_for_two_models_in_turn_cost_six_loads_at_most(seats: int, cost: int) -> None:
    service = SimulatedService()
    service.add_backend(seats=seats, load_ms=700)
    _one_after_another(service, [A, B] * 30, cost, at_once=8)
    assert service.loads <= 6
    naive = SimulatedService(is_naive=True)
    naive.add_backend(seats=seats, load_ms=700)
    _one_after_another(naive, [A, B] * 30, cost, at_once=8)
    assert service.time.now <= 0.6 * naive.time.now


def test_grouping_beats_first_come_first_served_by_three() -> None:
    def makespan(*, is_naive: bool) -> SimulatedService:
        service = SimulatedService(is_naive=is_naive)
        service.add_backend(seats=1, load_ms=10_000)
        for runner in [A, B, C, D] * 50:
            service.submit(runner, 1_000)
        service.run()
        return service

    ours, naive = makespan(is_naive=False), makespan(is_naive=True)
    assert naive.time.now >= 3 * ours.time.now
    bound = SWAP_WAIT + 3 * (10_000 + 1_000 + 10_000)
    for runner in (A, B, C, D):
        firsts = [job.started or 0 for job in ours.jobs if job.runner == runner]
        assert max(after - before for before, after in itertools.pairwise([0, *firsts])) <= bound


def test_a_drain_is_given_up_when_a_job_for_the_loaded_model_comes_before_the_load_is_sent() -> None:
    service = SimulatedService()
    service.add_backend(seats=2)
    service.submit(A, 5_000)
    service.run(3_000)
    other = service.submit(B, 1_000)
    service.run(4_000)
    again = service.submit(A, 1_000)
    assert again.started == 4_000
    service.run()
    assert service.loads == 2
    # With a twentieth of the load's time for whoever was answered just now.
    assert other.waited == 4_000 + 50


def test_a_drain_for_an_overdue_model_is_not_given_up() -> None:
    service = SimulatedService()
    service.add_backend(seats=2)
    service.submit(A, 50_000)
    service.run(3_000)
    other = service.submit(B, 1_000)
    service.run(3_000 + SWAP_WAIT)
    again = service.submit(A, 1_000)
    service.run()
    assert again.started is not None
    assert other.started is not None
    assert other.started < again.started


def test_a_residence_lasts_as_long_as_its_load_took() -> None:
    service = SimulatedService(max_swap_wait_ms=0)
    service.add_backend(seats=1, load_ms=10_000)
    for runner in [A, B, C, D] * 30:
        service.submit(runner, 1_000)
    service.run()
    # Everybody is always overdue, and yet each load is followed by as much work.
    assert service.loads <= 12 + 1


def test_a_swap_that_nobody_waits_for_any_more_is_forgotten() -> None:
    placement = Placement(SWAP_WAIT)
    placement.sent(A, 0)
    placement.answered(A, 1_000)
    assert placement.choose({A: 0, B: 0}, 40_000) is None
    assert placement.swap is not None
    assert placement.choose({A: 0}, 40_001) == A
    assert placement.swap is None


# What fits together


def test_models_seen_loaded_together_share_the_seats_and_nothing_is_drained() -> None:
    service = SimulatedService()
    backend = service.add_backend(fits=any_two, seats=4)
    service.keep_busy(A, 500, callers=6)
    service.run(2_000)
    service.keep_busy(B, 500, callers=6)
    service.run(100_000)
    assert service.loads == 2
    assert backend.placement.together == [frozenset({A, B})]
    late = Counter(job.runner for job in service.jobs if job.started is not None and job.started > 50_000)
    assert abs(late[A] - late[B]) <= 4
    assert late[A] + late[B] > 390


def test_pairs_that_fit_do_not_make_three_that_fit() -> None:
    service = SimulatedService(max_swap_wait_ms=3_000)
    backend = service.add_backend(fits=any_two, seats=3)
    service.on_event = lambda: _assert_safe(service)
    chance = random.Random(1)
    for _ in range(300):
        service.time.at(
            chance.randrange(300_000), lambda: service.submit(chance.choice((A, B, C)), chance.randrange(3_000))
        )
    service.run(300_000)
    service.run()
    assert all(len(known) == 2 for known in backend.placement.together)
    assert len(backend.placement.together) == 3


def test_a_model_that_fits_is_loaded_beside_the_others_at_once() -> None:
    service = SimulatedService()
    backend = service.add_backend(fits=any_two, seats=2)
    for _ in range(2):
        service.submit(A, 100)
        service.run()
        service.submit(B, 100)
        service.run()
    backend.ollama.evict(model_of_runner(B))
    service.run(service.time.now + 11_000)
    service.keep_busy(A, 500, callers=10)
    job = service.submit(B, 100)
    service.run(service.time.now + 5_000)
    assert job.waited <= 500 + 1_000


def test_runners_of_one_model_with_other_options_never_overlap() -> None:
    service = SimulatedService(max_swap_wait_ms=2_000)
    backend = service.add_backend(fits=any_two, seats=4)
    service.on_event = lambda: _assert_safe(service)
    service.keep_busy(A, 300, callers=4)
    service.keep_busy(A_LONG, 300, callers=4)
    service.run(60_000)
    counts = Counter(job.runner for job in service.jobs if job.ended is not None)
    assert min(counts[A], counts[A_LONG]) > 0.3 * max(counts[A], counts[A_LONG])
    assert backend.placement.together == []


def test_what_fits_with_one_set_of_options_is_not_thought_to_fit_with_another() -> None:
    placement = Placement(SWAP_WAIT)
    for now, runner in enumerate((A, B)):
        placement.sent(runner, now)
        placement.answered(runner, now)
        placement.ended(runner, now)
    placement.listed({"a:latest", "b:latest"}, 10)
    placement.sent(B, 11)
    assert placement.choose({A: 11}, 11) == A
    assert placement.choose({A_LONG: 11}, 11) is None


def test_a_load_that_hangs_beside_working_runners_is_drained_for() -> None:
    """What fitted once may fit no more: then Ollama waits for the others, and must not be kept waiting."""
    service = SimulatedService(max_swap_wait_ms=5_000)
    backend = service.add_backend(fits=any_two, seats=4)
    for runner in (A, B, A, B):
        service.submit(runner, 100)
        service.run()
    assert backend.placement.together == [frozenset({A, B})]
    backend.ollama.evict(model_of_runner(B))
    backend.ollama.fits = one_at_a_time
    service.run(service.time.now + 11_000)
    for cost in (400, 530, 610):
        service.keep_busy(A, cost, callers=1)
    service.run(service.time.now + 2_000)
    job = service.submit(B, 100)
    service.run(service.time.now + 60_000)
    assert backend.ollama.hazards == [(B, A)]
    assert 10_000 <= job.waited <= 10_000 + 610 + 1_000


# Cloud models


def test_cloud_models_are_in_nobodys_way() -> None:
    service = SimulatedService()
    backend = service.add_backend(seats=4)
    service.submit(A, 60_000)
    service.submit(CLOUD, 100_000)
    service.run(2_000)
    blocked = service.submit(B, 1_000)
    service.run(2_000 + SWAP_WAIT)
    assert backend.placement.swap is not None
    cloud = service.submit(CLOUD, 1_000)
    assert cloud.waited == 0
    service.run()
    # Not the hundred seconds of the first cloud job.
    assert blocked.first_byte == 1_000 + 60_000 + 1_000
    assert CLOUD not in backend.placement.residences
    assert service.loads == 2


# Several backends


@pytest.mark.parametrize("slowness", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("jobs", [100, 300])
def test_backends_of_unequal_speed_share_the_work_as_they_should(slowness: float, jobs: int) -> None:
    service = SimulatedService()
    service.add_backend("fast", seats=2)
    service.add_backend("slow", seats=2, slowness=slowness)
    for _ in range(jobs):
        service.submit(A, 1_000)
    service.run()
    ideal = jobs * 1_000 / 2 / (1 + 1 / slowness) + 1_000
    assert service.time.now <= 1.1 * ideal


def test_a_job_goes_where_its_model_is_loaded() -> None:
    service = SimulatedService()
    for name, loaded in (("one", [A]), ("two", [B]), ("three", [])):
        service.add_backend(name, loaded=loaded)
    jobs = [service.submit(runner, 100) for runner in (B, A, B, A, B)]
    service.run()
    assert [job.backend for job in jobs] == ["two", "one", "two", "one", "two"]
    assert service.loads == 0


def test_what_is_loaded_nowhere_goes_where_there_is_room() -> None:
    service = SimulatedService()
    service.add_backend("full", loaded=[A])
    service.add_backend("empty")
    job = service.submit(B, 100)
    service.run()
    assert job.backend == "empty"


def test_two_backends_do_not_both_load_what_one_of_them_has() -> None:
    service = SimulatedService()
    one = service.add_backend("one", loaded=[A], seats=2)
    two = service.add_backend("two", loaded=[B], seats=2)
    chance = random.Random(2)
    for runner in (A, B):
        for number in range(200):
            time = number * 500 + chance.randrange(500)
            service.time.at(time, partial(service.submit, runner, 400))
    service.run(100_000)
    service.run()
    assert (one.ollama.loads, two.ollama.loads) == (0, 0)


def test_an_idle_backend_takes_its_part_of_a_long_queue() -> None:
    service = SimulatedService()
    service.add_backend("one", seats=1, load_ms=5_000)
    service.add_backend("two", seats=1, load_ms=5_000)
    service.submit(B, 1_000)
    service.submit(A, 1_000)
    service.run()
    began = service.time.now
    for _ in range(100):
        service.submit(A, 1_000)
    service.run()
    # The other keeps B for as long as its load took, in case it is asked for again, and then joins in.
    assert service.time.now - began <= 0.5 * 100_000 + 5_000 + 5_000 + 1_000


def test_a_backend_that_is_seldom_asked_helps_with_a_long_queue() -> None:
    service = SimulatedService()
    service.add_backend("one", seats=1, load_ms=5_000, loaded=[A])
    service.add_backend("two", seats=1, load_ms=5_000)
    for number in range(100):
        service.time.at(number * 4_000, lambda: service.submit(B, 500))
    service.run(10_000)
    began = service.time.now
    for _ in range(200):
        service.submit(A, 1_000)
    service.run(400_000)
    ended = max(job.ended or 0 for job in service.jobs if job.runner == A)
    assert ended - began < 150_000


# What Ollama does of its own


def test_what_was_evicted_is_loaded_again_and_not_thought_to_be_there() -> None:
    service = SimulatedService()
    backend = service.add_backend()
    service.submit(A, 100)
    service.run()
    assert backend.placement.is_loaded(A)
    backend.ollama.evict(model_of_runner(A))
    service.run(service.time.now + 11_000)
    assert not backend.placement.is_loaded(A)
    assert backend.placement.residences == {}
    job = service.submit(A, 100)
    service.run()
    assert job.waited == 1_000
    assert backend.placement.swaps == 2


def test_a_model_with_unknown_options_is_taken_for_the_first_that_asks() -> None:
    service = SimulatedService()
    backend = service.add_backend(loaded=[A_LONG, B], fits=any_two)
    assert backend.placement.is_loaded(A)
    assert backend.placement.is_loaded(A_LONG)
    service.on_event = lambda: _assert_safe(service)
    # Whether it fits with B is not known either, so B is drained first.
    service.submit(B, 5_000)
    job = service.submit(A, 100)
    service.run()
    assert job.started is not None
    assert job.started >= 5_000
    assert backend.placement.loaded["a:latest"] == A
    assert not backend.placement.is_loaded(A_LONG)


def test_a_load_that_fails_is_asked_for_again_and_holds_up_nobody() -> None:
    service = SimulatedService()
    backend = service.add_backend()
    backend.ollama.failing_loads.add(A)
    failed = service.submit(A, 100)
    again = service.submit(A, 100)
    other = service.submit(B, 100)
    service.run()
    assert failed.first_byte is None
    assert again.first_byte is not None
    assert other.first_byte is not None
    assert backend.placement.in_flight == {}
    assert backend.placement.swaps == 3


def test_only_one_job_goes_ahead_while_its_model_loads() -> None:
    placement = Placement(SWAP_WAIT)
    assert placement.choose({A: 0}, 0) == A
    placement.sent(A, 0)
    assert placement.is_loading(A)
    assert placement.choose({A: 0, B: 0}, 40_000) is None
    placement.listed({"a:latest"}, 45_000)
    assert placement.choose({A: 0}, 45_000) == A


def test_being_listed_says_nothing_of_options_that_changed() -> None:
    placement = Placement(SWAP_WAIT)
    placement.sent(A, 0)
    placement.answered(A, 0)
    placement.ended(A, 1)
    placement.sent(A_LONG, 2)
    placement.listed({"a:latest"}, 3)
    assert placement.is_loading(A_LONG)
    placement.answered(A_LONG, 4)
    assert placement.is_loaded(A_LONG)
    assert not placement.is_loaded(A)


def test_only_what_has_answered_is_known_to_be_there_with_its_options() -> None:
    placement = Placement(SWAP_WAIT)
    for now, runner in enumerate((A, B)):
        placement.sent(runner, now)
        placement.listed({"a:latest", "b:latest"}, 10 + now)
        assert placement.together == []
        placement.answered(runner, 20 + now)
        placement.ended(runner, 20 + now)
    placement.listed({"a:latest", "b:latest"}, 30)
    assert placement.together == [frozenset({A, B})]


def test_what_another_backend_has_is_not_drained_for_here() -> None:
    placement = Placement(SWAP_WAIT)
    placement.sent(B, 0)
    placement.answered(B, 1_000)
    waiting = {A: 2_000, B: 39_000}
    assert placement.choose(waiting, 40_000, elsewhere={A}) == B
    assert placement.choose(waiting, 40_000) is None


# When to look again


@quick
@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 20_000)), max_size=8),
    st.dictionaries(st.sampled_from([A, B, C, D]), st.integers(0, 40_000), min_size=1),
    st.integers(20_000, 80_000),
    st.sets(st.sampled_from([A, B, C])),
    st.floats(0.01, 0.99),
)
def test_until_the_next_look_nothing_changes_by_itself(
    sent: list[tuple[str, int]], waiting: dict[str, int], now: int, elsewhere: set[str], share: float
) -> None:
    placement = Placement(SWAP_WAIT)
    time = 0
    for number, (runner, pause) in enumerate(sent):
        placement.sent(runner, time)
        time += pause // 8
        if number % 3:
            placement.answered(runner, time)
        if number % 2:
            placement.ended(runner, time)
    now = max(now, time)
    choice = placement.choose(waiting, now, elsewhere=elsewhere)
    look = placement.next_look(waiting, now)
    later = now + 10**7 if look is None else now + int((look - now) * share)
    assert placement.choose(waiting, later, elsewhere=elsewhere) == choice


def test_jobs_are_never_kept_from_a_backend_that_could_take_them() -> None:
    """A free seat, a waiting job and nothing at work: somebody goes."""
    backends: list[SimulatedBackend] = []
    service = SimulatedService()
    backends.extend(service.add_backend(name, loaded=loaded) for name, loaded in (("one", [A]), ("two", [B])))
    jobs: list[SimulatedJob] = []
    for runner in (A, B, C, D, A_LONG, CLOUD):
        jobs += [service.submit(runner, 1_000) for _ in range(3)]
        assert all(backend.in_flight for backend in backends) or len(jobs) <= 3
    service.run()
    assert all(job.ended is not None for job in jobs)
