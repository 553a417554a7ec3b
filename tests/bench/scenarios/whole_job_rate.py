"""Whole jobs each second: 64 submitters, a backend that costs nothing, until the gauges say that all are done."""

from __future__ import annotations

import time

from tests.bench.load import request_bytes, send_all
from tests.bench.measuring import Bench, compare_with, in_thread
from tests.bench.processes import ROOMY, backend_settings, instant_backend, relay, until_all_done
from tests.bench.table import Figure, against_bare
from tests.support.processes import running_service

SUBMITTERS = 64
JOBS = 4_000
BODY = {"model": "llama3.2", "prompt": "Why is the sky blue?"}


async def measure(bench: Bench) -> list[Figure]:
    """Against a bare relay of the same answers."""
    with bench.new_folder() as folder:
        async with (
            instant_backend(folder) as backend,
            relay(folder, backend) as relay_ports,
            running_service(folder, **ROOMY, **backend_settings(backend, seats=SUBMITTERS)) as service,
        ):
            compared = await compare_with(
                in_thread(_jobs_per_second, service.port),
                [in_thread(_relayed_per_second, port) for port in relay_ports],
            )
    what = "whole jobs of 20 tokens, 64 submitters; against a bare relay"
    return against_bare(what, compared, 0.40, "/s", has_commit=True)


def _jobs_per_second(port: int) -> float:
    requests = [request_bytes("POST", "/api/v1/prompt", BODY)] * JOBS
    begun = time.perf_counter()
    send_all(port, requests, connections=SUBMITTERS)
    until_all_done(port)
    return JOBS / (time.perf_counter() - begun)


def _relayed_per_second(port: int) -> float:
    requests = [request_bytes("POST", "/api/generate", BODY)] * JOBS
    return JOBS / send_all(port, requests, connections=SUBMITTERS)
