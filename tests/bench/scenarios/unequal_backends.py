"""Two backends, one three times as fast as the other: how the jobs are divided, and how long all of them take."""

from __future__ import annotations

import asyncio
import json
import time

import aiohttp

from tests.bench.measuring import Bench
from tests.bench.swapping import PATIENCE_SECONDS, call_in_turn, simulated_state
from tests.bench.table import Figure
from tests.support.processes import running_service, simulated_process

JOBS = 120
SEATS = 2
TOKENS = 10
JOB_SECONDS = (0.25, 0.75)
MODEL = "llama3.2"
WANTED = 0.10
DIRECT_JOBS = 8


async def measure(bench: Bench) -> list[Figure]:
    """Against the ideal, from what each does when it is called directly: both work all the time and end together."""
    arguments = ("--parallel", str(SEATS), "--tokens", str(TOKENS), "--load-seconds", "0", "--token-seconds")
    with bench.new_folder() as folder:
        async with (
            simulated_process(folder, *arguments, str(JOB_SECONDS[0] / TOKENS)) as fast,
            simulated_process(folder, *arguments, str(JOB_SECONDS[1] / TOKENS)) as slow,
        ):
            rates = await asyncio.gather(_direct_rate(fast), _direct_rate(slow))
            before = (await simulated_state(fast))["answers"]
            backends = [{"name": name, "url": url, "concurrency": SEATS} for name, url in (("f", fast), ("s", slow))]
            async with running_service(folder, CORRAL_BACKENDS=json.dumps(backends)) as service:
                seconds = await _run(service.url)
            share = ((await simulated_state(fast))["answers"] - before) / JOBS
    ideal_share, ideal_seconds = rates[0] / sum(rates), JOBS / sum(rates)
    return [
        Figure(
            "two backends, one three times as fast: its share of the jobs",
            f"{share:.3f}",
            f"ideal: {ideal_share:.3f}",
            f"{share / ideal_share:.2f}",
            f"within {WANTED:.0%}",
            abs(share / ideal_share - 1) <= WANTED,
        ),
        Figure(
            f"the same: time for {JOBS} jobs",
            f"{seconds:.2f} s",
            f"ideal: {ideal_seconds:.2f} s",
            f"{seconds / ideal_seconds:.2f}",
            f"≤ {1 + WANTED:.2f}",
            seconds / ideal_seconds <= 1 + WANTED,
        ),
    ]


async def _direct_rate(backend: str) -> float:
    """Jobs a second."""
    return DIRECT_JOBS / await call_in_turn(backend, [MODEL] * DIRECT_JOBS, callers=SEATS)


async def _run(service: str) -> float:
    async with aiohttp.ClientSession(service) as session:
        begun = time.perf_counter()
        for number in range(JOBS):
            body = {"prompt": f"job {number}", "model": MODEL}
            async with session.post("/api/v1/prompt", json=body) as response:
                response.raise_for_status()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                async with session.get("/health") as response:
                    queue = (await response.json())["queue"]
                if queue["queued"] == queue["processing"] == 0:
                    return time.perf_counter() - begun
                await asyncio.sleep(0.01)
