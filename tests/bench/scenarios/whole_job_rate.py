"""Whole jobs each second, and their CPU: 64 submitters, a backend that costs nothing, until all are done."""

from __future__ import annotations

import time

from tests.bench.load import request_bytes, send_all
from tests.bench.measuring import Bench
from tests.bench.processes import until_all_done
from tests.bench.streams import CALLERS, Asked, fronts, in_one_write, token_by_token
from tests.bench.table import Figure

BY_TURNS = True


async def measure(bench: Bench) -> list[Figure]:
    """Against a bare relay of the same answers."""
    asked = Asked(_run_jobs, _relay)
    async with fronts(bench, pause_ms=None) as before:
        figures = await in_one_write("whole jobs", before, asked, wanted=0.40)
    return [*figures, *await token_by_token(bench, "whole jobs", asked)]


def _run_jobs(port: int, tokens: int, jobs: int) -> float:
    begun = time.perf_counter()
    send_all(port, [_request("/api/v1/prompt", tokens)] * jobs, connections=CALLERS)
    until_all_done(port)
    return time.perf_counter() - begun


def _relay(port: int, tokens: int, jobs: int) -> float:
    return send_all(port, [_request("/api/generate", tokens)] * jobs, connections=CALLERS)


def _request(path: str, tokens: int) -> bytes:
    options = {"num_predict": tokens}
    return request_bytes("POST", path, {"model": "llama3.2", "prompt": "Why is the sky blue?", "options": options})
