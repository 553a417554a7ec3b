"""Status polls each second at 64 connections, of jobs that wait and of jobs that are finished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.bench.load import Connection, request_bytes, requests_per_second
from tests.bench.measuring import ROUND_SECONDS, Bench, compare_with, in_thread
from tests.bench.processes import ROOMY, backend_settings, echo, free_port, instant_backend, until_all_done
from tests.bench.scenarios.submitting import BODY, CONNECTIONS
from tests.bench.table import Figure, against_bare
from tests.support.processes import running_service

JOBS = 1_000


class _Polled(NamedTuple):
    port: int
    waiting: list[bytes]
    finished: list[bytes]


async def measure(bench: Bench) -> list[Figure]:
    """Against a GET of JSON of the same length."""
    rate = partial(requests_per_second, connections=CONNECTIONS, seconds=ROUND_SECONDS)
    with bench.new_folder() as folder:
        async with echo(folder) as echo_ports, _service_with_jobs(folder) as polled:
            baselines = [in_thread(rate, port, [request_bytes("GET", "/status")]) for port in echo_ports]
            of_waiting = await compare_with(in_thread(rate, polled.port, polled.waiting), baselines)
            of_finished = await compare_with(in_thread(rate, polled.port, polled.finished), baselines)
    return [
        *against_bare("status of a waiting job, 64 connections; against a bare JSON echo", of_waiting, 0.60, "/s"),
        *against_bare("status of a finished job, 64 connections; against a bare JSON echo", of_finished, 0.35, "/s"),
    ]


@asynccontextmanager
async def _service_with_jobs(folder: Path) -> AsyncIterator[_Polled]:
    """A service that has finished some jobs, whose backend is gone, and that has as many waiting."""
    port = free_port()
    async with running_service(folder, **ROOMY, **backend_settings(port, seats=8)) as service:
        async with instant_backend(folder, port):
            finished = await asyncio.to_thread(status_polls, service.port, JOBS)
            await asyncio.to_thread(until_all_done, service.port)
        waiting = await asyncio.to_thread(status_polls, service.port, JOBS)
        yield _Polled(service.port, waiting, finished)


def status_polls(port: int, jobs: int) -> list[bytes]:
    """Submit so many jobs; the requests that ask for their status."""
    submit = request_bytes("POST", "/api/v1/prompt", BODY)
    with Connection(port) as connection:
        return [request_bytes("GET", f"/api/v1/prompt/{connection.json(submit)['id']}/status") for _ in range(jobs)]
