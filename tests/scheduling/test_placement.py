"""Which runner a backend serves next: simulated time, the real placement, a model of Ollama's scheduler."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import settings

from service.backend.choice import choose
from service.backend.models import Listed
from service.backend.placement import Placement
from service.job import model_of_runner
from tests.support.ollama_in_time import any_two, one_at_a_time
from tests.support.placement_simulation import A_LONG, CLOUD, SWAP_WAIT, A, B, C, D, SimulatedService, assert_safe

quick = settings(max_examples=30, deadline=None)


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
    service.add_backend(seats=2, unfit=(A, B))
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
    assert choose(placement, {A: 0, B: 0}, 40_000) is None
    assert placement.swap is not None
    assert choose(placement, {A: 0}, 40_001) == A
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
    assert backend.placement.fitting.sets == [frozenset({A, B})]
    late = Counter(job.runner for job in service.jobs if job.started is not None and job.started > 50_000)
    assert abs(late[A] - late[B]) <= 4
    assert late[A] + late[B] > 390


def test_pairs_that_fit_do_not_make_three_that_fit() -> None:
    service = SimulatedService(max_swap_wait_ms=3_000)
    backend = service.add_backend(fits=any_two, seats=3)
    service.on_event = lambda: assert_safe(service)
    chance = random.Random(1)
    for _ in range(300):
        service.time.at(
            chance.randrange(300_000), lambda: service.submit(chance.choice((A, B, C)), chance.randrange(3_000))
        )
    service.run(300_000)
    service.run()
    assert all(len(known) == 2 for known in backend.placement.fitting.sets)
    assert len(backend.placement.fitting.sets) == 3


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
    service.on_event = lambda: assert_safe(service)
    service.keep_busy(A, 300, callers=4)
    service.keep_busy(A_LONG, 300, callers=4)
    service.run(60_000)
    counts = Counter(job.runner for job in service.jobs if job.ended is not None)
    assert min(counts[A], counts[A_LONG]) > 0.3 * max(counts[A], counts[A_LONG])
    assert backend.placement.fitting.sets == []


def test_what_fits_with_one_set_of_options_is_not_thought_to_fit_with_another() -> None:
    placement = Placement(SWAP_WAIT)
    for now, runner in enumerate((A, B)):
        placement.sent(runner, now)
        placement.answered(runner, now)
        placement.ended(runner, now)
    placement.listed(map(Listed, {"a:latest", "b:latest"}), 10)
    placement.sent(B, 11)
    assert choose(placement, {A: 11}, 11) == A
    assert choose(placement, {A_LONG: 11}, 11) is None


def test_a_load_that_hangs_beside_working_runners_is_drained_for() -> None:
    """What fitted once may fit no more: then Ollama waits for the others, and must not be kept waiting."""
    service = SimulatedService(max_swap_wait_ms=5_000)
    backend = service.add_backend(fits=any_two, seats=4)
    for runner in (A, B, A, B):
        service.submit(runner, 100)
        service.run()
    assert backend.placement.fitting.sets == [frozenset({A, B})]
    backend.ollama.evict(model_of_runner(B))
    backend.ollama.fits = one_at_a_time
    service.run(service.time.now + 11_000)
    for cost in (400, 530, 610):
        service.keep_busy(A, cost, callers=1)
    service.run(service.time.now + 2_000)
    job = service.submit(B, 100)
    service.run(service.time.now + 60_000)
    assert {loaded for _, loaded in backend.ollama.hazards} == {A}
    assert 10_000 <= job.waited <= 10_000 + 610 + 1_000


# Cloud models


def test_cloud_models_are_in_nobodys_way() -> None:
    service = SimulatedService()
    backend = service.add_backend(seats=4, unfit=(A, B))
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
