"""Looking at jobs: one with its position, a page of the list, what was asked and what was answered."""

from __future__ import annotations

from service.errors import NotFoundError
from service.job import Job, Line, Result, Status
from service.jobs.records import Page, View
from service.order import Order
from service.store.gauges import Gauges
from service.store.job_statements import EXACT_RANK, EXACT_TOTAL
from service.store.jobs import Filter, JobStore, Standing


class JobViews:
    """What may be seen of jobs; nothing here changes one."""

    def __init__(self, store: JobStore, gauges: Gauges, order: Order) -> None:
        self._store = store
        self._gauges = gauges
        self._order = order
        self._newest = 0

    async def view(self, job_id: str) -> View:
        """A job with its position. Raises NotFoundError."""
        standing = await self._store.standing(job_id)
        if standing is None:
            raise NotFoundError(f"there is no prompt {job_id!r}: it never was, or it is older than what is kept")
        return await self._viewed(standing)

    async def view_by_seq(self, seq: int) -> View:
        """The same by the integer id."""
        standing = await self._store.standing_by_seq(seq)
        if standing is None:
            raise NotFoundError(f"there is no request {seq}: it never was, or it is older than what is kept")
        return await self._viewed(standing)

    async def result(self, job: Job) -> Result | None:
        """What a finished job has written, None when nothing is kept."""
        return await self._store.result(job.seq)

    async def prompt(self, job: Job) -> str:
        """The whole prompt of a job."""
        return await self._store.prompt(job.seq)

    async def prompts(self, jobs: list[Job]) -> dict[int, str]:
        """The whole prompts of neighbouring jobs, by seq."""
        if not jobs:
            return {}
        return await self._store.prompts(min(job.seq for job in jobs), max(job.seq for job in jobs))

    def total(self, status: str | None = None, model: str | None = None, owner: str | None = None) -> int:
        """How many jobs there are, of one status, model or owner where named."""
        return self._gauges.total(status, model, owner)

    async def page(self, which: Filter, limit: int, offset: int) -> Page:
        """A page of the list, newest first."""
        jobs = await self._store.page(which, limit, offset)
        if which.text is None:
            return Page(jobs, self._gauges.total(which.status, which.model_key, which.owner), is_capped=False)
        total = await self._store.count(which)
        return Page(jobs, total, is_capped=total >= EXACT_TOTAL)

    async def _viewed(self, standing: Standing) -> View:
        job, rank = standing
        if job.status != Status.QUEUED or job.not_before is not None:
            return View(job, None)
        if rank < EXACT_RANK:
            return View(job, self._position(job.line, rank))
        # Beyond what is counted: where its number lies between the line's oldest and the newest of all.
        oldest = await self._store.oldest_of_line(job.line) or job.seq
        share = (job.seq - oldest) / max(1, self._newest - oldest)
        return View(job, self._position(job.line, max(rank, int(share * self._gauges.ready(job.line)))), is_exact=False)

    def _position(self, line: Line, rank: int) -> int:
        return 1 + self._order.ahead(line, max(0, rank), self._gauges.waiting.get(line.runner, {}))
