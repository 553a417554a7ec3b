"""Models of the same weights, known as such or not yet: in simulated time, beside a model of Ollama's scheduler."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.job import runner_key
from tests.support.ollama_in_time import Fits, any_two, one_at_a_time
from tests.support.placement_simulation import CLOUD, A, B, C, D, SimulatedService, assert_safe

WEIGHTS = dict.fromkeys((A, B, C), A)
NAMINGS: tuple[dict[str, str], ...] = ({}, {B: B, C: B}, {A: A, B: A}, WEIGHTS)
RUNNERS = (A, B, C, D, runner_key("b", {"num_ctx": 4096}), runner_key("c", {"num_ctx": 4096}), CLOUD)


def sharing(service: SimulatedService, name: str = "one", **fields: Any) -> None:
    """A backend that is known to have one runner for three names."""
    backend = service.add_backend(name, **fields)
    backend.ollama.weights = WEIGHTS
    backend.placement.know_names(WEIGHTS)


def test_names_of_one_runner_cost_one_load_and_run_side_by_side() -> None:
    service = SimulatedService()
    sharing(service, seats=3)
    jobs = [service.submit(runner, 1_000) for runner in (A, B, C)]
    service.run()
    assert service.loads == 1
    first_bytes = [job.first_byte for job in jobs if job.first_byte is not None]
    assert max(first_bytes) - min(first_bytes) < 600


def test_a_job_passes_a_thousand_of_another_name() -> None:
    service = SimulatedService()
    sharing(service, seats=2)
    for _ in range(1_000):
        service.submit(A, 1_000)
    service.run(5_000)
    job = service.submit(B, 1_000)
    service.run(10_000)
    assert job.ended is not None


@given(
    seed=st.integers(0, 2**32),
    fits=st.sampled_from([one_at_a_time, any_two]),
    backends=st.integers(1, 2),
    load_ms=st.sampled_from([0, 700, 20_000]),
)
@settings(max_examples=12, deadline=None)
def test_whatever_is_learnt_while_jobs_run_nothing_hangs_or_is_lost(
    seed: int, fits: Fits, backends: int, load_ms: int
) -> None:
    chance = random.Random(seed)
    service = SimulatedService(max_swap_wait_ms=5_000)
    for number in range(backends):
        sharing(service, str(number), fits=fits, seats=chance.randint(1, 5), load_ms=load_ms)
    service.on_event = lambda: assert_safe(service)
    for _ in range(30):
        backend = chance.choice(service.backends)
        match chance.choice(["submit", "submit", "submit", "wait", "wait", "evict", "learn", "fail"]):
            case "submit":
                for _ in range(chance.randint(1, 6)):
                    service.submit(chance.choice(RUNNERS), chance.randint(1, 30_000))
            case "wait":
                service.run(service.time.now + chance.choice([1, 100, 3_000, 20_000]))
            case "evict":
                backend.ollama.evict(chance.choice([A, D]))
            case "learn":
                backend.placement.know_names(chance.choice(NAMINGS))
                service.give_out_seats()
            case "fail":
                backend.ollama.failing_loads.add(chance.choice([A, D]))
        assert_safe(service)
    service.run()
    assert [backend.placement.in_flight for backend in service.backends] == [{}] * backends
