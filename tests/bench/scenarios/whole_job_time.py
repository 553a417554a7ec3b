"""What one job takes at one connection, from the submission to the end of its stream."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack

from tests.bench.load import Connection, LoadError, request_bytes
from tests.bench.measuring import Bench
from tests.bench.processes import Server, port_of, services
from tests.bench.table import Figure, added_milliseconds
from tests.support.processes import simulated_process

BY_TURNS = True

MODEL = "llama3.2"
PROMPT = "Why is the sky blue?"
WARM_UP_JOBS = 30
JOBS = 300
WANTED_MS = 2.0


async def measure(bench: Bench) -> list[Figure]:
    """Against calling the simulated Ollama directly, job by job in turn."""
    with bench.new_folder() as folder:
        async with (
            simulated_process(folder, "--tokens", "20", "--load-seconds", "0", "--parallel", "4") as backend,
            services(bench, OLLAMA_URL=backend) as running,
        ):
            direct, *through = await asyncio.to_thread(_timed_in_turn, port_of(backend), running)
    what = "a whole job of 20 tokens, one connection: submit, then its stream"
    return added_milliseconds(what, direct, through, WANTED_MS)


def _timed_in_turn(backend_port: int, running: list[Server]) -> list[list[float]]:
    """Milliseconds of the calls to the backend, then of those to each service."""
    with ExitStack() as opened:
        backend = opened.enter_context(Connection(backend_port))
        through = [opened.enter_context(Connection(service.port)) for service in running]
        rounds = [
            [_direct_ms(backend), *(_through_ms(service) for service in through)] for _ in range(WARM_UP_JOBS + JOBS)
        ]
    return [list(times) for times in zip(*rounds[WARM_UP_JOBS:], strict=True)]


def _direct_ms(backend: Connection) -> float:
    request = request_bytes("POST", "/api/generate", {"model": MODEL, "prompt": PROMPT})
    begun = time.perf_counter()
    backend.exchange(request)
    return (time.perf_counter() - begun) * 1000


def _through_ms(service: Connection) -> float:
    request = request_bytes("POST", "/api/v1/prompt", {"model": MODEL, "prompt": PROMPT})
    begun = time.perf_counter()
    job = service.json(request)
    events = service.exchange(request_bytes("GET", f"/api/v1/prompt/{job['id']}/stream"))
    taken = (time.perf_counter() - begun) * 1000
    if b"event: done" not in events:
        raise LoadError(f"the stream of {json.dumps(job)} ended without its end: {events[-300:]!r}")
    return taken
