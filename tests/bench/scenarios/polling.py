"""Status polls each second at 64 connections, of jobs that wait and of jobs that are finished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.bench.load import Connection, request_bytes, requests_per_second
from tests.bench.measuring import ROUND_SECONDS, Bench, by_turns, in_thread
from tests.bench.processes import ROOMY, backend_settings, echo, free_port, instant_backend, services, until_all_done
from tests.bench.scenarios.submitting import BODY, CONNECTIONS
from tests.bench.table import Figure, against_bare

BY_TURNS = True

JOBS = 1_000


class _Polled(NamedTuple):
    port: int
    waiting: list[bytes]
    finished: list[bytes]


async def measure(bench: Bench) -> list[Figure]:
    """Against a GET of JSON of the same length."""
    rate = partial(requests_per_second, connections=CONNECTIONS, seconds=ROUND_SECONDS)
    with bench.new_folder() as folder:
        async with echo(folder) as bare, _services_with_jobs(bench, folder) as polled:
            baselines = [in_thread(rate, server.port, [request_bytes("GET", "/status")]) for server in bare]
            of_waiting = await by_turns([*baselines, *(in_thread(rate, each.port, each.waiting) for each in polled)])
            of_finished = await by_turns([*baselines, *(in_thread(rate, each.port, each.finished) for each in polled)])
    return [
        *against_bare("status of a waiting job, 64 connections; against a bare JSON echo", of_waiting, 0.60, "/s"),
        *against_bare("status of a finished job, 64 connections; against a bare JSON echo", of_finished, 0.35, "/s"),
    ]


@asynccontextmanager
async def _services_with_jobs(bench: Bench, folder: Path) -> AsyncIterator[list[_Polled]]:
    """Services that have finished some jobs, whose backend is gone, and that have as many waiting."""
    port = free_port()
    async with services(bench, **ROOMY, **backend_settings(port, seats=8)) as running:
        async with instant_backend(folder, port):
            finished = [await asyncio.to_thread(status_polls, service.port, JOBS) for service in running]
            for service in running:
                await asyncio.to_thread(until_all_done, service.port)
        waiting = [await asyncio.to_thread(status_polls, service.port, JOBS) for service in running]
        ports = [service.port for service in running]
        yield [_Polled(*each) for each in zip(ports, waiting, finished, strict=True)]


def status_polls(port: int, jobs: int) -> list[bytes]:
    """Submit so many jobs; the requests that ask for their status."""
    submit = request_bytes("POST", "/api/v1/prompt", BODY)
    with Connection(port) as connection:
        return [request_bytes("GET", f"/api/v1/prompt/{connection.json(submit)['id']}/status") for _ in range(jobs)]
