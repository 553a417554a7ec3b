"""A database with 1,000,000 waiting jobs against an empty one: start, memory, submit, poll, claim, run."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from service.store.database import Batch, Row, Settle, Statement, Written
from service.store.jobs import JobStore
from service.store.sqlite.database import SqliteDatabase
from tests.bench.load import Connection, LoadError, request_bytes, requests_per_second
from tests.bench.measuring import Bench, Compared, compare, in_thread
from tests.bench.million_jobs import job_id, make_database
from tests.bench.processes import (
    ROOMY,
    backend_settings,
    free_port,
    instant_backend,
    resident_bytes,
    until_answering,
)
from tests.bench.scenarios.polling import status_polls
from tests.bench.scenarios.submitting import BODY, CONNECTIONS
from tests.bench.table import Figure, at_most, at_most_times
from tests.support.processes import running_service, service_settings, started

JOBS = 1_000_000
FEW_JOBS = 64
STARTS = 5
ROUNDS = 3
SECONDS = 1.0
WANTED_TIMES = 1.5

_MEGABYTE = 1_000_000
RUN_BEFORE = 500
RUN = 1_500
"""How many jobs are run before the clock starts, and while it runs."""
MANY_CLAIMS = 500

_PATIENCE_SECONDS = 60.0
_BACKEND_COMES_BACK_AT_ONCE = {"CORRAL_BREAKER__OPEN_SECONDS": "0.1", "CORRAL_HEALTH__PROBE_INTERVAL_SECONDS": "0.1"}


async def measure(bench: Bench) -> list[Figure]:
    """Both databases are served at the same time and measured by turns."""
    with bench.new_folder() as full, bench.new_folder() as empty:
        await make_database(full / "queue.db", JOBS)
        return [
            *await _starts(full, empty),
            *await _served(full, empty),
            await _claims(bench, full),
        ]


async def _starts(full: Path, empty: Path) -> list[Figure]:
    """From the start of the process until it answers, and what it takes then."""
    full_seconds: list[float] = []
    empty_seconds: list[float] = []
    idle_bytes: list[int] = []
    for _ in range(STARTS):
        for folder, seconds in ((full, full_seconds), (empty, empty_seconds)):
            port = free_port()
            settings = service_settings(folder, CORRAL_SERVER__PORT=str(port), **ROOMY)
            begun = time.perf_counter()
            async with started("service", folder=folder, **settings) as process:
                await until_answering(port)
                seconds.append(time.perf_counter() - begun)
                if folder is empty:
                    await asyncio.sleep(1)
                    idle_bytes.append(resident_bytes(process.pid))
                process.send(signal.SIGTERM)
                await process.ended()
    return [
        at_most("start with an empty database", statistics.median(empty_seconds), 1.0, "s"),
        at_most(f"start with {JOBS:,} waiting jobs", statistics.median(full_seconds), 2.0, "s"),
        at_most("memory when idle", statistics.median(idle_bytes) / _MEGABYTE, 70, "MB"),
    ]


async def _served(full_folder: Path, empty_folder: Path) -> list[Figure]:
    async with _service(full_folder) as full, _service(empty_folder) as empty:
        some = random.Random(1).sample(range(2, JOBS), 1_000)
        full_polls = [request_bytes("GET", f"/api/v1/prompt/{job_id(number)}/status") for number in some]
        empty_polls = await asyncio.to_thread(status_polls, empty.port, FEW_JOBS)
        submits = [request_bytes("POST", "/api/v1/prompt", BODY)]
        rate = partial(requests_per_second, connections=CONNECTIONS, seconds=SECONDS)
        polled = await compare(
            in_thread(rate, full.port, full_polls), in_thread(rate, empty.port, empty_polls), rounds=ROUNDS
        )
        submitted = await compare(
            in_thread(rate, full.port, submits), in_thread(rate, empty.port, submits), rounds=ROUNDS
        )
        run = await compare(full.jobs_per_second, empty.jobs_per_second, rounds=ROUNDS)
        resident = resident_bytes(full.pid) / _MEGABYTE
    return [
        _slowdown("polls", polled),
        _slowdown("submissions", submitted, has_commit=True),
        _slowdown("jobs run, 8 seats", run, has_commit=True),
        at_most(f"memory after all that, {JOBS:,} jobs waiting", resident, 200, "MB"),
    ]


def _slowdown(what: str, rates: Compared, *, has_commit: bool = False) -> Figure:
    return at_most_times(
        f"{what}, {JOBS:,} jobs waiting; how many times slower than with none",
        rates.measured,
        rates.baseline,
        1 / rates.ratio,
        WANTED_TIMES,
        "/s",
        has_commit=has_commit,
    )


class _Served(NamedTuple):
    """A service whose backend is not there yet."""

    pid: int
    port: int
    backend_port: int
    folder: Path

    async def jobs_per_second(self) -> float:
        """Let the backend be there until it has answered so many jobs."""
        async with instant_backend(self.folder, self.backend_port):
            return await asyncio.to_thread(self._answered_per_second)

    def _answered_per_second(self) -> float:
        answered = request_bytes("GET", "/answered")
        with Connection(self.backend_port) as backend:
            until_answered(partial(backend.json, answered), RUN_BEFORE)
            begun, before = time.perf_counter(), backend.json(answered)
            until_answered(partial(backend.json, answered), RUN_BEFORE + RUN)
            return float(backend.json(answered) - before) / (time.perf_counter() - begun)


def until_answered(answered: Callable[[], int], jobs: int) -> None:
    """Wait until a backend has answered so many."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while answered() < jobs:
        if time.monotonic() > end:
            raise LoadError(f"the backend was asked {answered()} times, not {jobs}")
        time.sleep(0.005)


@asynccontextmanager
async def _service(folder: Path) -> AsyncIterator[_Served]:
    port = free_port()
    settings = {**ROOMY, **_BACKEND_COMES_BACK_AT_ONCE, **backend_settings(port, seats=8)}
    async with running_service(folder, **settings) as service:
        yield _Served(service.process.pid, service.port, port, folder)


async def _claims(bench: Bench, full: Path) -> Figure:
    with bench.new_folder() as few:
        await make_database(few / "queue.db", ROUNDS * 2 * MANY_CLAIMS)
        of_full, of_few = _TimedDatabase(full / "queue.db"), _TimedDatabase(few / "queue.db")
        async with AsyncExitStack() as opened:
            opened.push_async_callback(of_full.close)
            opened.push_async_callback(of_few.close)
            compared = await compare(of_full.claim_microseconds, of_few.claim_microseconds, rounds=ROUNDS)
    statements = " and ".join(f"{statistics.median(each.statement_seconds) * 1e6:.0f}" for each in (of_full, of_few))
    what = f"a claim, {JOBS:,} jobs waiting; times that with a few thousand (without the commit {statements} µs)"
    return at_most_times(what, *compared, WANTED_TIMES, "µs", has_commit=True)


class _TimedDatabase(SqliteDatabase):
    """The file without the threads: what is timed is SQLite alone."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("synchronous = FULL", "wal_autocheckpoint = 0", "cache_size = -16000"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._seconds: list[float] = []
        self.statement_seconds: list[float] = []

    async def claim_microseconds(self) -> float:
        """The median of many claims of one job, each with its commit."""
        store = JobStore(self, own_name="bench")
        standing = await store.queries.standing(job_id(ROUNDS * 2 * MANY_CLAIMS))
        assert standing is not None
        self._seconds.clear()
        for _ in range(MANY_CLAIMS):
            if len(await store.claim(standing.job.line, 1, standing.job.created_at)) != 1:
                raise LoadError("nothing could be claimed")
        return statistics.median(self._seconds) * 1_000_000

    def write(self, *statements: Statement | Batch, is_urgent: bool = True, settle: Settle | None = None) -> Written:
        answers: Written = asyncio.get_running_loop().create_future()
        begun = time.perf_counter()
        self._connection.execute("BEGIN IMMEDIATE")
        answers.set_result([self._connection.execute(str(sql), values).fetchall() for sql, values in statements])
        self.statement_seconds.append(time.perf_counter() - begun)
        self._connection.execute("COMMIT")
        self._seconds.append(time.perf_counter() - begun)
        return answers

    def read(self, sql: str, parameters: Mapping[str, Any], *, is_scan: bool = False) -> asyncio.Future[list[Row]]:
        rows: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()
        rows.set_result(self._connection.execute(sql, parameters).fetchall())
        return rows

    async def close(self) -> None:
        self._connection.close()
