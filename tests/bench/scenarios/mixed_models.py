"""Four models of which one fits, fifty jobs of each, interleaved: against first come, first served.

A fiftieth of real time: jobs of a second, loads of ten, and the default patience of thirty.
"""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime
from typing import Any

import aiohttp

from tests.bench.measuring import Bench
from tests.bench.swapping import (
    PATIENCE_SECONDS,
    Pace,
    call_in_turn,
    one_model_at_a_time,
    service_before,
    simulated_state,
)
from tests.bench.table import Figure, at_most

PACE = Pace(job=0.02, load=0.2, max_swap_wait=0.6)
MODELS = ("alpha", "beta", "gamma", "delta")
JOBS = 50
SEATS = 2
WANTED_TIMES = 3.0
BOUND_SECONDS = PACE.max_swap_wait + (len(MODELS) - 1) * (PACE.load + PACE.job + PACE.load)
"""Of design: the patience, and for each other model that waits a residence as long as its load, a drain and a load."""


async def measure(bench: Bench) -> list[Figure]:
    """Makespan, and how long a model that was waited for was not served."""
    order = list(itertools.islice(itertools.cycle(MODELS), JOBS * len(MODELS)))
    with bench.new_folder() as folder:
        async with one_model_at_a_time(folder, MODELS, PACE, parallel=SEATS) as backend:
            first_come = await call_in_turn(backend, order, callers=SEATS)
            loads_before = (await simulated_state(backend))["load_count"]
            async with service_before(folder, backend, PACE, seats=SEATS) as service:
                jobs = await _run(service, order)
            loads = (await simulated_state(backend))["load_count"] - loads_before
    makespan = max(_moment(job, "finished_at") for job in jobs) - min(_moment(job, "created_at") for job in jobs)
    return [
        Figure(
            f"4 models × {JOBS} jobs, one fits, a load is ten jobs long: makespan ({loads} loads, not {loads_before})",
            f"{makespan:.1f} s",
            f"first come, first served: {first_come:.1f} s",
            f"{first_come / makespan:.1f}",
            f"≥ {WANTED_TIMES:g}",
            first_come / makespan >= WANTED_TIMES,
        ),
        at_most(
            "longest that a waiting model was not served (loads of 0.2 s, patience of 0.6 s)",
            max(_longest_wait([job for job in jobs if job["model"] == model]) for model in MODELS),
            BOUND_SECONDS,
            "s",
        ),
    ]


async def _run(service: str, order: list[str]) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession(service) as session:
        ids = [await _submit(session, model) for model in order]
        async with asyncio.timeout(PATIENCE_SECONDS):
            return [await _finished(session, job_id) for job_id in ids]


async def _submit(session: aiohttp.ClientSession, model: str) -> str:
    async with session.post("/api/v1/prompt", json={"prompt": "short", "model": model}) as response:
        response.raise_for_status()
        return str((await response.json())["id"])


async def _finished(session: aiohttp.ClientSession, job_id: str) -> dict[str, Any]:
    while True:
        async with session.get(f"/api/v1/prompt/{job_id}/status?wait=60") as response:
            job = dict(await response.json())
        if job["status"] == "completed":
            return job


def _longest_wait(jobs: list[dict[str, Any]]) -> float:
    """The longest time between two starts of a model's jobs, the first counted from its oldest job's submission."""
    starts = sorted(_moment(job, "started_at") for job in jobs)
    return max(after - before for before, after in itertools.pairwise([_moment(jobs[0], "created_at"), *starts]))


def _moment(job: dict[str, Any], name: str) -> float:
    return datetime.fromisoformat(job[name]).timestamp()
