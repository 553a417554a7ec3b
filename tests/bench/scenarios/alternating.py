"""Sixty short requests for two models in turn, eight at once: how often models are swapped, and the time."""

from __future__ import annotations

import itertools

from tests.bench.measuring import Bench
from tests.bench.swapping import Pace, call_in_turn, one_model_at_a_time, service_before, simulated_state
from tests.bench.table import Figure

PACE = Pace(job=0.1, load=0.5, max_swap_wait=3.0)
"""A tenth of real time for the default patience."""
REQUESTS = 60
AT_ONCE = 8
SEATS = 2
MOST_LOADS = 6
WANTED_RATIO = 0.6


async def measure(bench: Bench) -> list[Figure]:
    """Each caller sends its next request when it has its answer; through the service, and to the backend directly."""
    models = list(itertools.islice(itertools.cycle(("one", "two")), REQUESTS))
    with bench.new_folder() as folder:
        async with one_model_at_a_time(folder, ("one", "two"), PACE, parallel=SEATS) as backend:
            direct = await call_in_turn(backend, models, callers=AT_ONCE)
            direct_loads = (await simulated_state(backend))["load_count"]
        async with (
            one_model_at_a_time(folder, ("one", "two"), PACE, parallel=SEATS) as backend,
            service_before(folder, backend, PACE, seats=SEATS) as service,
        ):
            through = await call_in_turn(service, models, callers=AT_ONCE)
            loads = (await simulated_state(backend))["load_count"]
    what = f"{REQUESTS} short requests for two models in turn, {AT_ONCE} at once"
    return [
        Figure(f"{what}: loads", str(loads), f"direct: {direct_loads}", "", f"≤ {MOST_LOADS}", loads <= MOST_LOADS),
        Figure(
            f"{what}: time",
            f"{through:.1f} s",
            f"direct: {direct:.1f} s",
            f"{through / direct:.2f}",
            f"≤ {WANTED_RATIO:g}",
            through / direct <= WANTED_RATIO,
        ),
    ]
