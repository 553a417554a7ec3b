"""What the drop-in path adds to a chat of 20 tokens, how many streams a second it carries, and what memory it takes.

The caller uses Ollama's own API; each call is a job, on disk before a byte is sent and after the last.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from tests.bench.load import Connection, Timed, request_bytes, send_all
from tests.bench.measuring import Bench, compare_with, in_thread
from tests.bench.processes import ROOMY, backend_settings, instant_backend, port_of, relay, resident_bytes
from tests.bench.table import Figure, against_bare, at_most
from tests.support.processes import running_service, simulated_process

CHAT: dict[str, Any] = {
    "model": "llama3.2",
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "stream": True,
}
REQUEST = request_bytes("POST", "/api/chat", CHAT)
WARM_UP_CALLS = 50
CALLS = 500
WANTED_MS = 1.0
CALLERS = 64
STREAMS = 4_000
REMEMBERED_CALLS = 10_000
"""After so many the caches that are bounded are full."""
MOST_GROWTH_MB = 5.0


async def measure(bench: Bench) -> list[Figure]:
    """Against direct calls, and against a bare relay."""
    return [*await _added_time(bench), *await _streams_and_memory(bench)]


async def _added_time(bench: Bench) -> list[Figure]:
    figures = []
    with bench.new_folder() as folder:
        async with (
            simulated_process(folder, "--tokens", "20", "--load-seconds", "0", "--parallel", "4") as backend,
            running_service(folder, OLLAMA_URL=backend) as service,
        ):
            direct, through = await asyncio.to_thread(_both, port_of(backend), service.port)
    for what, index in (("first byte", 0), ("end", 1)):
        below, above = (statistics.median(call[index] for call in calls) for calls in (direct, through))
        figures.append(
            Figure(
                f"/api/chat of 20 tokens, one connection, to the {what}: added to calling the backend directly",
                f"{above:.2f} ms",
                f"{below:.2f} ms",
                f"+{above - below:.2f} ms",
                f"≤ +{WANTED_MS:g} ms",
                above - below <= WANTED_MS,
                has_commit=True,
            )
        )
    return figures


def _both(backend_port: int, service_port: int) -> tuple[list[Timed], list[Timed]]:
    direct, through = [], []
    with Connection(backend_port) as backend, Connection(service_port) as service:
        for _ in range(WARM_UP_CALLS + CALLS):
            direct.append(backend.timed(REQUEST))
            through.append(service.timed(REQUEST))
    return direct[WARM_UP_CALLS:], through[WARM_UP_CALLS:]


async def _streams_and_memory(bench: Bench) -> list[Figure]:
    with bench.new_folder() as folder:
        async with (
            instant_backend(folder) as backend,
            relay(folder, backend) as relay_ports,
            running_service(folder, **ROOMY, **backend_settings(backend, seats=CALLERS)) as service,
        ):
            compared = await compare_with(
                in_thread(_streams_per_second, service.port),
                [in_thread(_streams_per_second, port) for port in relay_ports],
            )
            before = resident_bytes(service.process.pid)
            await asyncio.to_thread(send_all, service.port, [REQUEST] * REMEMBERED_CALLS, connections=CALLERS)
            grown = (resident_bytes(service.process.pid) - before) / (1 << 20)
    return [
        *against_bare("/api/chat streams, 64 connections; against a bare relay", compared, 0.6, "/s", has_commit=True),
        at_most("memory that 10,000 more of them leave behind", grown, MOST_GROWTH_MB, "MB"),
    ]


def _streams_per_second(port: int) -> float:
    return STREAMS / send_all(port, [REQUEST] * STREAMS, connections=CALLERS)
