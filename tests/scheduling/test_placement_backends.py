"""Several backends, and what Ollama does of its own."""

from __future__ import annotations

import random
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.backend.choice import choose
from service.backend.models import Listed
from service.backend.placement import Placement
from service.job import model_of_runner
from tests.support.ollama_in_time import any_two
from tests.support.placement_simulation import (
    A_LONG,
    CLOUD,
    SWAP_WAIT,
    A,
    B,
    C,
    D,
    SimulatedService,
    assert_safe,
)
from tests.support.simulated_jobs import SimulatedBackend, SimulatedJob

quick = settings(max_examples=30, deadline=None)


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
    service.on_event = lambda: assert_safe(service)
    # As it is listed it fits with B: nothing is drained.
    service.submit(B, 5_000)
    job = service.submit(A, 100)
    service.run()
    assert job.started == 0
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


def test_a_job_for_a_model_that_is_not_there_is_in_nobodys_way() -> None:
    placement = Placement(SWAP_WAIT, installed=frozenset({"a:latest"}))
    placement.sent(A, 0)
    assert choose(placement, {B: 0}, 0) == B
    placement.sent(B, 0)
    placement.answered(A, 1_000)
    assert choose(placement, {A: 0}, 1_000) == A
    assert placement.swaps == 1
    # It was pulled meanwhile: now it may wait for a load, and for those that are at work.
    placement.installed = frozenset({"a:latest", "b:latest"})
    assert choose(placement, {A: 0}, 1_000) is None


def test_only_one_job_goes_ahead_while_its_model_loads() -> None:
    placement = Placement(SWAP_WAIT)
    assert choose(placement, {A: 0}, 0) == A
    placement.sent(A, 0)
    assert placement.is_loading(A)
    assert choose(placement, {A: 0, B: 0}, 40_000) is None
    placement.listed(map(Listed, {"a:latest"}), 45_000)
    assert choose(placement, {A: 0}, 45_000) == A


def test_being_listed_says_nothing_of_options_that_changed() -> None:
    placement = Placement(SWAP_WAIT)
    placement.sent(A, 0)
    placement.answered(A, 0)
    placement.ended(A, 1)
    placement.sent(A_LONG, 2)
    placement.listed(map(Listed, {"a:latest"}), 3)
    assert placement.is_loading(A_LONG)
    placement.answered(A_LONG, 4)
    assert placement.is_loaded(A_LONG)
    assert not placement.is_loaded(A)


def test_only_what_has_answered_is_known_to_be_there_with_its_options() -> None:
    placement = Placement(SWAP_WAIT)
    for now, runner in enumerate((A, B)):
        placement.sent(runner, now)
        placement.listed(map(Listed, {"a:latest", "b:latest"}), 10 + now)
        assert placement.fitting.sets == []
        placement.answered(runner, 20 + now)
        placement.ended(runner, 20 + now)
    placement.listed(map(Listed, {"a:latest", "b:latest"}), 30)
    assert placement.fitting.sets == [frozenset({A, B})]


def test_what_another_backend_has_is_not_drained_for_here() -> None:
    placement = Placement(SWAP_WAIT)
    placement.sent(B, 0)
    placement.answered(B, 1_000)
    waiting = {A: 2_000, B: 39_000}
    assert choose(placement, waiting, 40_000, elsewhere={A}) == B
    assert choose(placement, waiting, 40_000) is None


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
    choice = choose(placement, waiting, now, elsewhere=elsewhere)
    look = placement.next_look(waiting, now)
    later = now + 10**7 if look is None else now + int((look - now) * share)
    assert choose(placement, waiting, later, elsewhere=elsewhere) == choice


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
