"""What one job takes at one connection, from the submission to the end of its stream."""

from __future__ import annotations

import asyncio
import json
import statistics
import time

from tests.bench.load import Connection, LoadError, request_bytes
from tests.bench.measuring import Bench
from tests.bench.processes import port_of
from tests.bench.table import Figure
from tests.support.processes import running_service, simulated_process

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
            running_service(folder, OLLAMA_URL=backend) as service,
        ):
            direct, through = await asyncio.to_thread(_both_ms, port_of(backend), service.port)
    more = statistics.median(through) - statistics.median(direct)
    return [
        Figure(
            "a whole job of 20 tokens, one connection: submit, then its stream; against calling the backend directly",
            f"{statistics.median(through):.2f} ms",
            f"{statistics.median(direct):.2f} ms",
            f"+{more:.2f} ms",
            f"≤ +{WANTED_MS:g} ms",
            more <= WANTED_MS,
            has_commit=True,
        )
    ]


def _both_ms(backend_port: int, service_port: int) -> tuple[list[float], list[float]]:
    direct, through = [], []
    with Connection(backend_port) as backend, Connection(service_port) as service:
        for _ in range(WARM_UP_JOBS + JOBS):
            direct.append(_direct_ms(backend))
            through.append(_through_ms(service))
    return direct[WARM_UP_JOBS:], through[WARM_UP_JOBS:]


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
