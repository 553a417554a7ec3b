"""Pages that nobody reaches by turning them, and searches that find nothing, do not read the whole table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from service.backend.pool import Pool
from service.clock import Clock
from service.config import Config
from service.jobs.row_cache import RowCache
from service.jobs.searching import MOST_COUNTED
from service.jobs.views import Views
from service.queue.backlog import Backlog
from service.scheduling.estimates import Estimates
from service.store.database import Statement
from service.store.job_filters import Filter
from service.store.jobs import JobStore
from tests.support.databases import Place
from tests.support.recording import Recording, rows_read
from tests.support.running import RunningService, service_in_process
from tests.support.store_jobs import backlog_of

FAR = 10**9
LIMIT = 10

_FILL = """
    WITH RECURSIVE numbers (number) AS (SELECT {first} UNION ALL SELECT number + 1 FROM numbers WHERE number < {last})
    INSERT INTO jobs (id, door, endpoint, model, model_key, runner, owner, key_id, priority, is_streamed, status,
                      attempt, failures, crashes, preview, size, created_at, updated_at, finished_at)
    SELECT 'id-' || number, 'prompts', '/api/generate', 'm', 'm:latest', 'm:latest', 'owner',
           CASE WHEN number <= 5 THEN 'old' ELSE 'new' END, 0, 1,
           CASE WHEN number <= 5 THEN 'cancelled' WHEN number % 100 = 0 THEN 'failed' ELSE 'completed' END, 0,
           0, 0, 'prompt', 100, number, number, number
    FROM numbers
"""


class Stage(NamedTuple):
    """What lists are made of, and the statements that they have led to."""

    place: Place
    recording: Recording
    backlog: Backlog
    views: Views

    async def read(self, which: Filter, page: int) -> tuple[list[int], int, int]:
        """The numbers of a page's jobs, the total, and how many rows were read for them."""
        self.recording.statements.clear()
        found = await self.views.page(which, LIMIT, (page - 1) * LIMIT)
        read = await rows_read(self.place, self.recording, tuple(self.recording.statements))
        return [job.seq for job in found.jobs], found.total, read

    async def fill(self, first: int, last: int) -> None:
        """Put these jobs there."""
        await self.recording.write(Statement(_FILL.format(first=first, last=last), {}))
        self.backlog.gauges.set(*await JobStore(self.recording, "one").queries.gauges())


@asynccontextmanager
async def staged(place: Place, rows: int) -> AsyncIterator[Stage]:
    async with place.opened() as database:
        recording, clock, backlog = Recording(database), Clock(), backlog_of("one")
        pool = Pool([], Config(), clock, asyncio.Event())
        estimates = Estimates(backlog, pool, clock)
        queries = JobStore(recording, "one").queries
        stage = Stage(place, recording, backlog, Views(queries, backlog, RowCache(is_enabled=True), estimates, clock))
        await stage.fill(1, rows)
        yield stage


ALL = [
    Filter(),
    Filter(("completed",)),
    Filter(("queued", "processing")),
    Filter(("failed", "cancelled")),
    Filter(model_key="m:latest"),
    Filter(owner="owner"),
    Filter(("failed", "cancelled"), owner="owner"),
    Filter(("completed",), "m:latest", "owner"),
    Filter(model_key="nobody's"),
    Filter(text="nowhere"),
    Filter(key_id="new"),
    Filter(key_id="nobody's"),
]


async def test_a_page_beyond_the_last_costs_no_more_than_the_first(place: Place) -> None:
    async with staged(place, 3_000) as stage:
        for which in ALL:
            jobs, total, read = await stage.read(which, 1)
            far_jobs, far_total, far_read = await stage.read(which, FAR)
            assert (far_jobs, far_total) == ([], total), which
            assert far_read <= read, which
            assert len(jobs) == min(LIMIT, total), which


async def test_each_page_is_walked_to_from_the_nearer_end(place: Place) -> None:
    rows = 3_000
    async with staged(place, rows) as stage:
        for which in (Filter(), Filter(model_key="m:latest"), Filter(("failed", "cancelled"))):
            _, total, first = await stage.read(which, 1)
            pages = -(-total // LIMIT)
            jobs, _, last = await stage.read(which, pages)
            assert min(jobs) == 1
            assert last <= first + LIMIT, which
            _, _, middle = await stage.read(which, pages // 2)
            assert middle <= first + 3 * total, which


async def test_a_full_page_is_counted_for_among_the_newest_jobs_only_and_an_old_job_is_found(place: Place) -> None:
    rows = MOST_COUNTED + 60_000
    async with staged(place, rows) as stage:
        page = await stage.views.page(Filter(("failed",), key_id="new"), LIMIT, 0)
        assert (len(page.jobs), page.is_capped, page.total) == (LIMIT, False, rows // 100)
        page = await stage.views.page(Filter(key_id="new"), LIMIT, 0)
        assert (len(page.jobs), page.is_capped, page.is_complete) == (LIMIT, True, False)
        # What has a condition of its own is found at once, however old it is, and all else after a walk.
        assert (await stage.read(Filter(("cancelled",), key_id="old"), 1))[0] == [5, 4, 3, 2, 1]
        assert (await stage.read(Filter(key_id="old"), 1))[0] == [5, 4, 3, 2, 1]


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process() as running:
        yield running


@pytest.mark.parametrize("status", ["", "pending", "completed", "failed"])
async def test_the_farthest_page_of_requests_is_empty_and_tells_the_total(service: RunningService, status: str) -> None:
    await service.finished()
    _, first = await service.call("GET", f"/requests?status={status}")
    answered, far = await service.call("GET", f"/requests?status={status}&page={FAR}&per_page=100")
    assert (answered, far["requests"], far["total"]) == (200, [], first["total"])


@pytest.mark.parametrize("query", ["", "status=completed&", "model=llama3.2&", "q=sky&", "q=nowhere&model=llama3.2&"])
async def test_the_farthest_page_of_prompts_is_empty_and_tells_the_total(service: RunningService, query: str) -> None:
    await service.finished()
    _, first = await service.call("GET", f"/api/v1/prompts?{query}")
    answered, far = await service.call("GET", f"/api/v1/prompts?{query}page={FAR}&page_size=100")
    assert (answered, far["prompts"], far["total"]) == (200, [], first["total"])
