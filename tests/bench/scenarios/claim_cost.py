"""What it costs to choose and claim the next job: 1,000,000 waiting jobs of 1,000 owners for 20 models, and few.

The dispatcher's own steps, on the core and the database in this process: which model and whose turn it is, and the
claim with its commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import NamedTuple

from service.backend.http.connections import Connections
from service.backend.pool import Pool, build_backend
from service.clock import Clock
from service.config import BackendConfig, Config
from service.job import Priority
from service.jobs.attempts import Attempts
from service.jobs.ledger import Ledger
from service.jobs.row_cache import RowCache
from service.jobs.upkeep import Upkeep
from service.live.hub import Hub
from service.metrics.values import Metrics
from service.queue import Order
from service.queue.backlog import Backlog
from service.queue.capacity import QueueLimits
from service.queue.key_limits import KeyLimits
from service.scheduling.scheduler import Scheduler
from service.store.jobs import JobStore
from service.store.sqlite.database import SqliteDatabase
from tests.bench.load import LoadError
from tests.bench.measuring import Bench, compare
from tests.bench.million_jobs import make_database
from tests.bench.table import Figure, at_most_times

JOBS = 1_000_000
FEW_JOBS = 2_000
OWNERS = 1_000
MODELS = 20
CLAIMS = 200
ROUNDS = 5
WANTED_TIMES = 1.5
_BOOST_MS = 60_000.0


async def measure(bench: Bench) -> list[Figure]:
    """Both databases by turns; every claim is of another model than the one before."""
    with bench.new_folder() as full, bench.new_folder() as few:
        await make_database(full / "queue.db", JOBS)
        await make_database(few / "queue.db", FEW_JOBS)
        _divide(full / "queue.db", owners=OWNERS)
        _divide(few / "queue.db", owners=1)
        async with AsyncExitStack() as opened:
            of_full = await _Queue.open(full / "queue.db", opened)
            of_few = await _Queue.open(few / "queue.db", opened)
            for queue in (of_full, of_few):
                await queue.claim_microseconds()
            claims = await compare(of_full.claim_microseconds, of_few.claim_microseconds, rounds=ROUNDS)
    chosen = " and ".join(f"{statistics.median(queue.choosing) * 1e6:.0f}" for queue in (of_full, of_few))
    what = (
        f"choose and claim a job, {JOBS:,} waiting, {OWNERS:,} owners × {MODELS} models; times that of one owner's few"
    )
    return [
        at_most_times(f"{what} (choosing alone {chosen} µs)", *claims, WANTED_TIMES, "µs", has_commit=True),
    ]


class _Queue(NamedTuple):
    """The core on a database, without anybody who works."""

    scheduler: Scheduler
    pool: Pool
    attempts: Attempts
    choosing: list[float]
    """Seconds that each choice took."""

    @classmethod
    async def open(cls, path: Path, opened: AsyncExitStack) -> _Queue:
        database = await SqliteDatabase.open(path)
        opened.push_async_callback(database.close)
        order = Order({priority: priority * _BOOST_MS for priority in Priority})
        limits = QueueLimits(10 * JOBS, 1 << 50, 1 << 20)
        clock, store = Clock(), JobStore(database, "bench")
        config, connections = Config(), await opened.enter_async_context(Connections())
        backend = build_backend(BackendConfig(name="bench", concurrency=1), connections, config, clock)
        # It has none of the models, so that nothing is loaded: each job may go, and the models take turns.
        backend.note_installed(())
        backend.is_answering = True
        pool = Pool([backend], config, clock, asyncio.Event())
        backlog = Backlog(
            order,
            KeyLimits(lambda _key_id: None),
            limits,
            clock,
            process="bench",
            is_exclusive=True,
            work=asyncio.Event(),
        )
        row_cache = RowCache(is_enabled=True)
        ledger = Ledger(store, backlog, row_cache, Hub(), clock, Metrics())
        await Upkeep(store, ledger, backlog, row_cache, clock).recount()
        return cls(Scheduler(backlog, pool, clock), pool, Attempts(store, ledger, backlog, clock), [])

    async def claim_microseconds(self) -> float:
        """The median of many claims of one job each."""
        seconds = []
        models = set()
        for _ in range(CLAIMS):
            begun = time.perf_counter()
            [seat] = self.scheduler.choose()
            self.choosing.append(time.perf_counter() - begun)
            [running] = await self.attempts.claim([seat.pick])
            seconds.append(time.perf_counter() - begun)
            models.add(seat.pick.line.model)
            self.attempts.let_go(running)
            self.pool.free(seat.backend, seat.pick.line.runner)
        if len(models) != MODELS:
            raise LoadError(f"{len(models)} models had a turn, not {MODELS}")
        return statistics.median(seconds) * 1_000_000


def _divide(path: Path, *, owners: int) -> None:
    """Give the jobs to so many owners and to the models, evenly."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("synchronous = OFF", "cache_size = -500000"):
            connection.execute(f"PRAGMA {pragma}")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        connection.execute("BEGIN")
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        model = f"'model-' || (seq % {MODELS}) || ':latest'"
        connection.execute(
            f"UPDATE jobs SET runner = {model}, model_key = {model}, model = {model},"
            f" owner = 'owner-' || (seq / {MODELS} % :owners)",
            {"owners": owners},
        )
        for _, sql in indexes:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
