"""What was asked and what it took: kept in memory for a moment, written in batches, and summed up.

A request costs no commit of its own: its row waits for the next batch, at most a second. So does the news of how its
job ended.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from service.clock import Clock
from service.errors import CannotStoreError, ServiceError
from service.job import Job
from service.keys.keyring import Keyring
from service.live.hub import ENDED, Hub, JobChanged
from service.store.request_log import LogRow, RequestLogStore, Scope, Sums

_log = logging.getLogger(__name__)

_FLUSH_SECONDS = 1.0
_MOST_WAITING = 20_000
"""Rows, and ends of jobs, that wait for a database that takes no writes; beyond it the oldest are lost, and counted."""
_AT_ONCE = 128
"""What SQLite takes in one statement; see service.store.sqlite.bulk.MOST_ROWS."""
_PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Statistics(NamedTuple):
    """What was asked since ``since`` (milliseconds since the epoch; None: since the log begins)."""

    since: int | None
    totals: Sums
    response_ms: dict[str, int]
    """The response times that half, 95 and 99 of a hundred requests did not exceed: p50, p95, p99."""
    by_key: dict[str | None, Sums]
    by_owner: dict[str, Sums]
    by_model: dict[str | None, Sums]
    by_day: dict[int, Sums]


class RequestLog:
    """The log of requests."""

    def __init__(self, store: RequestLogStore, keys: Keyring, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._rows: list[LogRow] = []
        self._places: dict[str, int] = {}
        """Where in ``_rows`` the row of a job is: that of the request that made it."""
        self._expected: dict[str, Job | None] = {}
        """Jobs whose requests are still being answered, and what became of them meanwhile."""
        self._ended: dict[str, Job] = {}
        """Jobs whose rows are in the database already."""
        self._something = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._lost = 0

    def expect(self, job: Job) -> None:
        """A request has made this job; its row comes with :meth:`record`, when it is answered."""
        self._expected[job.id] = self._ended.pop(job.id, None)

    def record(self, row: LogRow) -> None:
        """A request was answered."""
        job_id = row.job_id
        ended = self._expected.pop(job_id, None) if job_id is not None else None
        if len(self._rows) >= _MOST_WAITING:
            self._lost += 1
            return
        if job_id is not None:
            self._places[job_id] = len(self._rows)
        self._rows.append(row if ended is None else row.ended_as(ended))
        if len(self._rows) == 1:
            self._something.set()

    def receive(self, event: JobChanged) -> None:
        """Hear of a job that has ended: that completes the row of its request."""
        job = event.job
        place = self._places.get(job.id)
        if place is not None:
            self._rows[place] = self._rows[place].ended_as(job)
        elif job.id in self._expected:
            self._expected[job.id] = job
        elif len(self._ended) < _MOST_WAITING:
            self._ended[job.id] = job
            self._something.set()

    @asynccontextmanager
    async def listening(self, hub: Hub) -> AsyncIterator[None]:
        """Hear of the ends of all jobs, and write everything down at the end."""
        hub.subscribe(ENDED, self)
        try:
            yield
        finally:
            hub.unsubscribe(ENDED, self)
            try:
                await self.flush()
            except ServiceError as error:
                _log.warning("%d requests are missing in the log: %s", len(self._rows), error)

    async def keep_writing(self) -> None:
        """Write what has gathered, at most a second after it came; never returns."""
        while True:
            await self._something.wait()
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.flush()
            except ServiceError as error:
                _log.warning("the log of requests could not be written: %s", error)

    async def flush(self) -> None:
        """Write everything that has gathered. What could not be written waits for the next time.

        Raises CannotStoreError.
        """
        async with self._flushing:
            await self._keys.write_uses()
            rows, ended = self._rows, list(self._ended.values())
            self._rows, self._ended, self._places = [], {}, {}
            self._something.clear()
            if self._lost:
                _log.warning("%d requests are missing in the log: the database took no writes", self._lost)
                self._lost = 0
            unwritten_rows, unwritten_ends = rows, ended
            try:
                unwritten_rows = await _written(rows, self._store.append)
                unwritten_ends = await _written(ended, self._store.end)
            finally:
                self._take_back(unwritten_rows, unwritten_ends)
            if unwritten_rows or unwritten_ends:
                raise CannotStoreError("the database takes no writes")

    async def statistics(self, scope: Scope) -> Statistics:
        """The sums of the present period."""
        await self.flush()
        since = await self._store.period_start()
        begin = since or 0
        groups = await self._store.groups(scope, begin)
        by_key: defaultdict[str | None, Sums] = defaultdict(Sums)
        by_model: defaultdict[str | None, Sums] = defaultdict(Sums)
        by_day: defaultdict[int, Sums] = defaultdict(Sums)
        totals = Sums()
        for group in groups:
            totals = totals.plus(group.sums)
            by_key[group.key_id] = by_key[group.key_id].plus(group.sums)
            by_model[group.model] = by_model[group.model].plus(group.sums)
            by_day[group.day] = by_day[group.day].plus(group.sums)
        ranks = {name: math.ceil(share * totals.requests) for name, share in _PERCENTILES.items()}
        response_ms = await self._store.response_ms_at(scope, begin, ranks) if totals.requests else {}
        by_owner = dict(await self._store.owners(scope, begin))
        return Statistics(since, totals, response_ms, dict(by_key), by_owner, dict(by_model), dict(by_day))

    async def begin_period(self, key_id: str | None) -> int:
        """Statistics begin anew, now (milliseconds since the epoch); the log stays."""
        await self.flush()
        # What came within this millisecond belongs to what was.
        now = self._clock.now_ms() + 1
        await self._store.begin_period(now, key_id)
        return now

    async def prune(self, before: int) -> int:
        """Forget a batch of rows older than ``before``; how many."""
        return await self._store.prune(before)

    def _take_back(self, rows: list[LogRow], ended: list[Job]) -> None:
        if not rows and not ended:
            return
        kept = (rows + self._rows)[-_MOST_WAITING:]
        self._lost += len(rows) + len(self._rows) - len(kept)
        self._rows = kept
        self._places = {row.job_id: place for place, row in enumerate(kept) if row.job_id is not None}
        ends = {job.id: job for job in (*ended, *self._ended.values())}
        self._ended = {}
        for job in ends.values():
            self.receive(JobChanged(job))
        self._something.set()


_Item = TypeVar("_Item")


async def _written(
    items: Sequence[_Item], write: Callable[[Sequence[_Item]], Awaitable[object]], at_once: int = _AT_ONCE
) -> list[_Item]:
    """Write the items, some at a time so that nobody else's write waits for all of them; those that were not taken."""
    unwritten: list[_Item] = []
    for start in range(0, len(items), at_once):
        some = items[start : start + at_once]
        try:
            await write(some)
        except CannotStoreError:
            unwritten += some
        except ServiceError as error:
            if len(some) == 1:
                _log.error("a row of the log of requests was refused by the database: %s", error)
            else:
                unwritten += await _written(some, write, 1)
    return unwritten
