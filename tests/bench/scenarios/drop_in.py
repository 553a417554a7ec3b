"""What the drop-in path adds to a chat of 20 tokens, how many streams it carries, and what CPU and memory they take.

The caller uses Ollama's own API; each call is a job, on disk before a byte is sent and after the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

from tests.bench.load import Connection, Timed, request_bytes, send_all
from tests.bench.measuring import Bench
from tests.bench.processes import port_of, resident_bytes, services
from tests.bench.streams import CALLERS, Asked, fronts, in_one_write, token_by_token
from tests.bench.table import Figure, added_milliseconds, at_most
from tests.support.processes import simulated_process

BY_TURNS = True

TOKENS = 20
WARM_UP_CALLS = 50
CALLS = 500
WANTED_MS = 1.0
REMEMBERED_CALLS = 10_000
"""After so many the caches that are bounded are full."""
MOST_GROWTH_MB = 5.0


async def measure(bench: Bench) -> list[Figure]:
    """Against direct calls, and against a bare relay."""
    asked = Asked(_stream, _stream)
    return [
        *await _added_time(bench),
        *await _streams_and_memory(bench, asked),
        *await token_by_token(bench, "/api/chat", asked),
    ]


async def _added_time(bench: Bench) -> list[Figure]:
    with bench.new_folder() as folder:
        async with (
            simulated_process(folder, "--tokens", str(TOKENS), "--load-seconds", "0", "--parallel", "4") as backend,
            services(bench, OLLAMA_URL=backend) as running,
        ):
            ports = [port_of(backend), *(service.port for service in running)]
            direct, *through = await asyncio.to_thread(_timed_in_turn, ports)
    what = f"/api/chat of {TOKENS} tokens, one connection"
    return [
        *added_milliseconds(
            f"{what}, to the first byte",
            [call.first for call in direct],
            [[call.first for call in calls] for calls in through],
            WANTED_MS,
        ),
        *added_milliseconds(
            f"{what}, to the end",
            [call.last for call in direct],
            [[call.last for call in calls] for calls in through],
            WANTED_MS,
        ),
    ]


def _timed_in_turn(ports: Sequence[int]) -> list[list[Timed]]:
    """The same call to each of the ports, over and over."""
    with ExitStack() as opened:
        connections = [opened.enter_context(Connection(port)) for port in ports]
        rounds = [[each.timed(_chat(TOKENS)) for each in connections] for _ in range(WARM_UP_CALLS + CALLS)]
    return [list(calls) for calls in zip(*rounds[WARM_UP_CALLS:], strict=True)]


async def _streams_and_memory(bench: Bench, asked: Asked) -> list[Figure]:
    async with fronts(bench, pause_ms=None) as before:
        figures = await in_one_write("/api/chat streams", before, asked, wanted=0.60)
        service = before.services[0]
        resident = resident_bytes(service.pid)
        await asyncio.to_thread(_stream, service.port, TOKENS, REMEMBERED_CALLS)
        grown = (resident_bytes(service.pid) - resident) / (1 << 20)
    what = f"memory that {REMEMBERED_CALLS:,} more streams leave behind"
    return [*figures, at_most(what, grown, MOST_GROWTH_MB, "MB")]


def _stream(port: int, tokens: int, streams: int) -> float:
    return send_all(port, [_chat(tokens)] * streams, connections=CALLERS)


def _chat(tokens: int) -> bytes:
    body = {
        "model": "llama3.2",
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        "stream": True,
        "options": {"num_predict": tokens},
    }
    return request_bytes("POST", "/api/chat", body)
