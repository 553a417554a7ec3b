"""What a scenario starts and looks at from outside; the service itself comes from ``tests.support.processes``."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench.listening import ON_UVLOOP
from tests.bench.load import Connection, LoadError, request_bytes
from tests.support.processes import running_at_url

_PATIENCE_SECONDS = 120.0

HEALTH = request_bytes("GET", "/health")


def port_of(url: str) -> int:
    """The port of a URL that ends with it."""
    return int(url.rsplit(":", 1)[1])


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Bare(NamedTuple):
    """The ports of a baseline: aiohttp as it comes, and the same on the loop that the service uses."""

    plain: int
    on_uvloop: int


@asynccontextmanager
async def echo(folder: Path) -> AsyncIterator[Bare]:
    """The bare JSON echo."""
    async with (
        running_at_url("tests.bench.echo", folder=folder) as plain,
        running_at_url("tests.bench.echo", ON_UVLOOP, folder=folder) as on_uvloop,
    ):
        yield Bare(port_of(plain), port_of(on_uvloop))


@asynccontextmanager
async def relay(folder: Path, backend_port: int) -> AsyncIterator[Bare]:
    """The bare relay in front of a backend."""
    backend = f"http://127.0.0.1:{backend_port}"
    async with (
        running_at_url("tests.bench.relay", backend, folder=folder) as plain,
        running_at_url("tests.bench.relay", backend, ON_UVLOOP, folder=folder) as on_uvloop,
    ):
        yield Bare(port_of(plain), port_of(on_uvloop))


@asynccontextmanager
async def instant_backend(folder: Path, port: int = 0) -> AsyncIterator[int]:
    """The backend that costs nothing; its port."""
    async with running_at_url("tests.bench.instant_backend", str(port), folder=folder) as url:
        yield port_of(url)


def backend_settings(port: int, *, seats: int) -> dict[str, str]:
    """Environment variables that give a service one backend with so many seats."""
    backends = [{"name": "bench", "url": f"http://127.0.0.1:{port}", "concurrency": seats}]
    return {"CORRAL_BACKENDS": json.dumps(backends)}


ROOMY = {"CORRAL_QUEUE__MAX_SIZE": "100000000", "CORRAL_QUEUE__MAX_BYTES": "100 GiB"}
"""A queue that never refuses."""


def resident_bytes(pid: int) -> int:
    """The memory that a process has resident, as the kernel counts it (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LoadError(f"process {pid} is gone")


async def until_answering(port: int) -> None:
    """Wait until ``/health`` answers, looking every two milliseconds."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            with Connection(port) as connection:
                connection.exchange(HEALTH)
                return
        except (OSError, LoadError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.002)


def until_all_done(port: int) -> None:
    """Wait until the service's own gauges say that nothing is queued or processing."""
    end = time.monotonic() + _PATIENCE_SECONDS
    with Connection(port) as connection:
        while True:
            queue = connection.json(HEALTH)["queue"]
            if queue["queued"] == queue["processing"] == 0:
                return
            if time.monotonic() > end:
                raise LoadError(f"jobs are left: {queue}")
            time.sleep(0.005)
