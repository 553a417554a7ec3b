"""Looking at jobs: one with its position, a page of the list, what was asked and what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from service.clock import Clock
from service.errors import NotFoundError
from service.job import Job, Line, Result, Status
from service.jobs.records import Page, View
from service.jobs.row_cache import RowCache
from service.queue import Order
from service.queue.gauges import Gauges
from service.store.job_queries import Filter, Standing
from service.store.job_statements import EXACT_RANK, EXACT_TOTAL
from service.store.jobs import JobStore

_FIRST_GUESS_MS = 5_000.0
"""What a job is thought to take in an estimate, before any of its runner has ended."""
_OLDEST_MS = 1_000
"""How long the oldest job of a line is taken for the oldest, where positions are estimated anyway."""
_MOST_LINES = 1_000


def no_prompt(job_id: str) -> NotFoundError:
    """What is said of a job that is not there, and of one that the caller may not know of."""
    return NotFoundError(f"there is no prompt {job_id!r}: it never was, or it is older than what is kept")


def no_request(seq: int) -> NotFoundError:
    """The same of the integer id."""
    return NotFoundError(f"there is no request {seq}: it never was, or it is older than what is kept")


class Views:
    """What may be seen of jobs; nothing here changes one."""

    def __init__(self, store: JobStore, gauges: Gauges, order: Order, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._row_cache = RowCache(is_enabled=store.is_exclusive)
        self._gauges = gauges
        self._order = order
        self._newest = 0
        self._oldest: dict[Line, tuple[int, int]] = {}
        """The number of the oldest job of long lines, and until when that is believed."""
        self._estimate: Callable[[str, int], float | None] = lambda _runner, _ahead: None

    def when_estimated(self, estimate: Callable[[str, int], float | None]) -> None:
        """Have ``estimate`` say in how many seconds a job begins before which so many of its runner go."""
        self._estimate = estimate

    def expected_ms(self, runner: str) -> float:
        """What a job of this runner takes of a backend."""
        return self._order.expected_ms(runner) or _FIRST_GUESS_MS

    def ready_counts(self) -> Mapping[str, int]:
        """How many jobs of each runner could be claimed."""
        return self._gauges.ready_by_runner

    def remembered_view(self, job_id: str) -> View | None:
        """A job with its position, as far as that is known without a look into the database."""
        job = self._row_cache.get(job_id)
        if job is None:
            return None
        if not _is_ready(job):
            return View(job, None)
        now = self._clock.now_ms()
        rank = self._row_cache.rank(job, now)
        if rank is None:
            return None
        if rank < EXACT_RANK:
            return self._queued_view(job, job.line, rank)
        oldest = self._known_oldest(job.line, now)
        return self._distant_view(job, rank, oldest) if oldest is not None else None

    async def view(self, job_id: str) -> View:
        """A job with its position. Raises NotFoundError."""
        return self.remembered_view(job_id) or await self.found_view(job_id)

    async def found_view(self, job_id: str) -> View:
        """The same of a job of which not enough is remembered. Raises NotFoundError."""
        job = self._row_cache.get(job_id)
        rank = self._row_cache.rank(job, self._clock.now_ms()) if job is not None else None
        if job is not None and rank is not None:
            return await self._ready_view(job, rank)
        calm = self._row_cache.calm()
        standing = await self._store.queries.standing(job_id)
        if standing is None:
            raise no_prompt(job_id)
        return await self._viewed(standing, calm)

    async def view_by_seq(self, seq: int) -> View:
        """The same by the integer id."""
        calm = self._row_cache.calm()
        standing = await self._store.queries.standing_by_seq(seq)
        if standing is None:
            raise no_request(seq)
        return await self._viewed(standing, calm)

    async def views(self, jobs: Sequence[Job]) -> list[View]:
        """Jobs of a list with their positions, as they stand now."""
        return list(await asyncio.gather(*(self._view_of_row(job) for job in jobs)))

    async def result(self, job: Job) -> Result | None:
        """What a finished job has written, None when nothing is kept."""
        return await self._store.queries.result(job.seq)

    async def prompt(self, job: Job) -> str:
        """The whole prompt of a job."""
        return await self._store.queries.prompt(job.seq)

    async def request(self, job: Job) -> str:
        """The body with which a backend is asked, JSON."""
        return await self._store.queries.request(job.seq)

    async def prompts(self, jobs: list[Job]) -> dict[int, str]:
        """The whole prompts of neighbouring jobs, by seq."""
        if not jobs:
            return {}
        return await self._store.queries.prompts(min(job.seq for job in jobs), max(job.seq for job in jobs))

    def total(self, status: str | None = None, model: str | None = None, owner: str | None = None) -> int:
        """How many jobs there are, of one status, model or owner where named."""
        return self._gauges.total(status, model, owner)

    async def page(self, which: Filter, limit: int, offset: int) -> Page:
        """A page of the list, newest first."""
        jobs = await self._store.queries.page(which, limit, offset)
        for job in jobs:
            self._row_cache.learn(job)
        if which.text is None and which.key_id is None:
            return Page(jobs, self._gauges.total(which.status, which.model_key, which.owner), is_capped=False)
        total = await self._store.queries.count(which)
        return Page(jobs, total, is_capped=total >= EXACT_TOTAL)

    async def _view_of_row(self, job: Job) -> View:
        if not _is_ready(job):
            return View(job, None)
        calm = self._row_cache.calm()
        standing = await self._store.queries.standing(job.id)
        return await self._viewed(standing, calm) if standing is not None else View(job, None)

    async def _viewed(self, standing: Standing, calm: int | None = None) -> View:
        job, rank = standing
        if not _is_ready(job):
            self._row_cache.learn(job)
            return View(job, None)
        if self._row_cache.get(job.id) in (None, job):
            # A rank is believed only if nothing has moved while the database was asked.
            is_certain = calm is not None and calm == self._row_cache.calm()
            self._row_cache.put(job, rank if is_certain else None, self._clock.now_ms())
        return await self._ready_view(job, rank)

    async def _ready_view(self, job: Job, rank: int) -> View:
        if rank < EXACT_RANK:
            return self._queued_view(job, job.line, rank)
        now = self._clock.now_ms()
        oldest = self._known_oldest(job.line, now)
        if oldest is None:
            oldest = await self._store.queries.oldest_of_line(job.line) or job.seq
            if len(self._oldest) >= _MOST_LINES:
                self._oldest.clear()
            self._oldest[job.line] = (oldest, now + _OLDEST_MS)
        return self._distant_view(job, rank, oldest)

    def _known_oldest(self, line: Line, now: int) -> int | None:
        oldest, until = self._oldest.get(line, (0, 0))
        return oldest if now < until else None

    def _distant_view(self, job: Job, rank: int, oldest: int) -> View:
        """Beyond what is counted: where its number lies between the line's oldest and the newest of all."""
        share = (job.seq - oldest) / max(1, self._newest - oldest)
        rank = max(rank, int(share * (self._gauges.ready(job.line) - 1)))
        return self._queued_view(job, job.line, rank, is_exact=False)

    def _queued_view(self, job: Job, line: Line, rank: int, *, is_exact: bool = True) -> View:
        """A ready job of this line, before which ``rank`` others of it wait."""
        ahead = self._order.ahead(line, max(0, rank), self._gauges.waiting.get(line.runner, {}))
        return View(job, 1 + ahead, is_exact, self._estimate(line.runner, ahead))


def _is_ready(job: Job) -> bool:
    return job.status == Status.QUEUED and job.not_before is None
