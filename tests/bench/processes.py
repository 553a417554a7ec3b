"""What a scenario starts and looks at from outside, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench.listening import ON_UVLOOP
from tests.bench.load import Connection, LoadError, request_bytes
from tests.bench.measuring import Bench
from tests.support.checkout import ROOT, search_path
from tests.support.processes import running_service, started

_PATIENCE_SECONDS = 120.0

HEALTH = request_bytes("GET", "/health")


def port_of(url: str) -> int:
    """The port of a URL that ends with it."""
    return int(url.rsplit(":", 1)[1])


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Server(NamedTuple):
    """A process of its own that listens."""

    port: int
    pid: int


class Bare(NamedTuple):
    """A baseline twice: aiohttp as it comes, and the same on the loop that the service uses."""

    plain: Server
    on_uvloop: Server


@asynccontextmanager
async def echo(folder: Path) -> AsyncIterator[Bare]:
    """The bare JSON echo."""
    async with _both_ways("tests.bench.echo", folder=folder) as bare:
        yield bare


@asynccontextmanager
async def relay(folder: Path, backend_port: int) -> AsyncIterator[Bare]:
    """The bare relay in front of a backend."""
    async with _both_ways("tests.bench.relay", f"http://127.0.0.1:{backend_port}", folder=folder) as bare:
        yield bare


@asynccontextmanager
async def instant_backend(folder: Path, port: int = 0, *, pause_ms: float | None = None) -> AsyncIterator[int]:
    """The backend that costs nothing; its port. Given a pause, it writes each token by itself."""
    paced = () if pause_ms is None else ("--pause-ms", str(pause_ms))
    async with _listening("tests.bench.instant_backend", str(port), *paced, folder=folder) as backend:
        yield backend.port


@asynccontextmanager
async def services(bench: Bench, **settings: str) -> AsyncIterator[list[Server]]:
    """This checkout's service and, where one is measured beside it, the other's after it; each has its own database."""
    async with AsyncExitStack() as running:
        servers = []
        for checkout in filter(None, (ROOT, bench.other)):
            folder = running.enter_context(bench.new_folder())
            own_path = search_path(checkout)
            service = await running.enter_async_context(running_service(folder, **settings, PYTHONPATH=own_path))
            servers.append(Server(service.port, service.process.pid))
        yield servers


@asynccontextmanager
async def _both_ways(module: str, *arguments: str, folder: Path) -> AsyncIterator[Bare]:
    async with (
        _listening(module, *arguments, folder=folder) as plain,
        _listening(module, *arguments, ON_UVLOOP, folder=folder) as on_uvloop,
    ):
        yield Bare(plain, on_uvloop)


@asynccontextmanager
async def _listening(module: str, *arguments: str, folder: Path) -> AsyncIterator[Server]:
    async with started(module, *arguments, folder=folder) as process:
        yield Server(port_of((await process.hears("^http://.*"))[0]), process.pid)


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


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, user and system: all of its threads, and the children that it has waited for."""
    # The name of the program, in brackets, may have blanks and brackets itself.
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    utime, stime, cutime, cstime = map(int, after_name[11:15])
    return (utime + stime + cutime + cstime) / os.sysconf("SC_CLK_TCK")


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
