"""Four callers that keep one model busy, and one request for another: Ollama alone never answers that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from tests.bench.measuring import Bench
from tests.bench.swapping import PATIENCE_SECONDS, Pace, generate, one_model_at_a_time, service_before
from tests.bench.table import Figure

PACE = Pace(job=0.02, load=0.2, max_swap_wait=0.6)
BUSY, OTHER = "busy", "other"
CALLERS = 4
SEATS = 2
WATCHED_TIMES = 3
"""Ollama alone is watched for so many times the bound: the request is not going to be answered."""
BOUND_SECONDS = PACE.max_swap_wait + PACE.load + PACE.job + PACE.load + PACE.job
"""The patience; residence, drain and load of the one other model; and the job itself."""


async def measure(bench: Bench) -> list[Figure]:
    """Seconds until the other model's request is answered."""
    with bench.new_folder() as folder:
        async with one_model_at_a_time(folder, (BUSY, OTHER), PACE, parallel=SEATS) as backend:
            alone = await _seconds_until_answered(backend, WATCHED_TIMES * BOUND_SECONDS)
            async with service_before(folder, backend, PACE, seats=SEATS) as service:
                through = await _seconds_until_answered(service, PATIENCE_SECONDS)
    answered = "no answer while watched" if alone is None else f"{alone:.2f} s"
    taken = through if through is not None else float("inf")
    return [
        Figure(
            "a request for a model that is not loaded, while four callers keep the other busy",
            f"{taken:.2f} s",
            f"Ollama alone: {answered}, {WATCHED_TIMES * BOUND_SECONDS:.1f} s",
            "",
            f"≤ {BOUND_SECONDS:.2f} s",
            taken <= BOUND_SECONDS,
        )
    ]


async def _seconds_until_answered(url: str, most: float) -> float | None:
    async with aiohttp.ClientSession(url) as session, _kept_busy(url):
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(most):
                await generate(session, OTHER)
        except TimeoutError:
            return None
        return time.perf_counter() - begun


@asynccontextmanager
async def _kept_busy(url: str) -> AsyncIterator[None]:
    """Callers that send their next request as soon as they have an answer, until the end of the block."""

    async def call_on(session: aiohttp.ClientSession, answered: asyncio.Event) -> None:
        while True:
            await generate(session, BUSY)
            answered.set()

    async with aiohttp.ClientSession(url) as session:
        loaded = asyncio.Event()
        callers = [asyncio.create_task(call_on(session, loaded)) for _ in range(CALLERS)]
        try:
            await loaded.wait()
            yield
        finally:
            for caller in callers:
                caller.cancel()
            for caller in callers:
                with contextlib.suppress(asyncio.CancelledError):
                    await caller
