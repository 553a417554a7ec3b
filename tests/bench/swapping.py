"""A simulated Ollama that holds one model at a time, and programs that call it, directly or through the service."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from tests.bench.load import LoadError
from tests.support.processes import running_service, simulated_process

TOKENS = 10
PATIENCE_SECONDS = 300.0


class Pace(NamedTuple):
    """How long things take, in seconds."""

    job: float
    load: float
    max_swap_wait: float


async def simulated_state(url: str) -> dict[str, Any]:
    """What a simulated Ollama has seen and done."""
    async with aiohttp.ClientSession(url) as session, session.get("/simulated/state") as response:
        return dict(await response.json())


@asynccontextmanager
async def one_model_at_a_time(folder: Path, models: Sequence[str], pace: Pace, *, parallel: int) -> AsyncIterator[str]:
    """The backend; its URL."""
    listed = [{"name": name, "load_seconds": pace.load} for name in models]
    arguments = ("--models", json.dumps(listed), "--max-loaded", "1", "--parallel", str(parallel))
    tokens = ("--tokens", str(TOKENS), "--token-seconds", str(pace.job / TOKENS))
    async with simulated_process(folder, *arguments, *tokens) as url:
        yield url


@asynccontextmanager
async def service_before(folder: Path, backend: str, pace: Pace, *, seats: int) -> AsyncIterator[str]:
    """The service in front of it; its URL."""
    settings = {
        "CORRAL_BACKENDS": json.dumps([{"name": "bench", "url": backend, "concurrency": seats}]),
        "CORRAL_QUEUE__MAX_SWAP_WAIT_SECONDS": str(pace.max_swap_wait),
    }
    async with running_service(folder, **settings) as service:
        yield service.url


async def generate(session: aiohttp.ClientSession, model: str, prompt: str = "short") -> None:
    """One call of Ollama's own API, as any program makes it."""
    body = {"model": model, "prompt": prompt, "stream": False}
    async with session.post("/api/generate", json=body) as response:
        answer = await response.json(content_type=None)
        if response.status != 200 or not answer.get("done"):
            raise LoadError(f"{model}: {response.status} {answer}")


async def call_in_turn(url: str, models: Sequence[str], *, callers: int) -> float:
    """Make one call for each of the models, in this order, so many at once; the seconds that all of them took.

    Each caller sends its next call when it has the answer to its last.
    """
    waiting = iter(models)

    async def call_on(session: aiohttp.ClientSession) -> None:
        for model in waiting:
            await generate(session, model)

    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
        begun = time.perf_counter()
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(call_on(session))
        return time.perf_counter() - begun
