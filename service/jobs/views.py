"""Looking at jobs: one with its position, a page of the list, what was asked and what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.clock import Clock
from service.errors import NotFoundError
from service.job import Job, Line
from service.jobs.records import Page, View
from service.jobs.row_cache import RowCache
from service.jobs.searching import Search, SearchTurns
from service.queue.backlog import Backlog, is_ready
from service.scheduling.estimates import Estimates
from service.store.job_filters import Filter
from service.store.job_queries import JobQueries, Standing
from service.store.job_statements import EXACT_RANK
from service.store.long_texts import StoredResult, StoredText

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

    def __init__(
        self, queries: JobQueries, backlog: Backlog, row_cache: RowCache, estimates: Estimates, clock: Clock
    ) -> None:
        self._queries = queries
        self._backlog = backlog
        self._row_cache = row_cache
        self._estimates = estimates
        self._clock = clock
        self.search_turns = SearchTurns()
        self._oldest: dict[Line, tuple[int, int]] = {}
        """The number of the oldest job of long lines, and until when that is believed."""

    async def keys_of_unfinished(self) -> list[str]:
        """The ids of the keys that have jobs which are not final."""
        return await self._queries.keys_of_unfinished()

    def remembered_view(self, job_id: str) -> View | None:
        """A job with its position, as far as that is known without a look into the database."""
        job = self._row_cache.get(job_id)
        if job is None:
            return None
        if not is_ready(job):
            return View(job, None)
        now = self._clock.now_ms()
        rank = self._row_cache.rank(job, now)
        if rank is None:
            return None
        if rank < EXACT_RANK:
            return self.queued_view(job, job.line, rank)
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
        calm = self._backlog.ranks.calm()
        standing = await self._queries.standing(job_id)
        if standing is None:
            raise no_prompt(job_id)
        return await self.viewed(standing, calm)

    async def view_by_seq(self, seq: int) -> View:
        """The same by the integer id."""
        calm = self._backlog.ranks.calm()
        standing = await self._queries.standing_by_seq(seq)
        if standing is None:
            raise no_request(seq)
        return await self.viewed(standing, calm)

    async def views(self, jobs: Sequence[Job]) -> list[View]:
        """Jobs of a list with their positions, as they stand now."""
        return list(await asyncio.gather(*(self._view_of_row(job) for job in jobs)))

    async def oldest(self) -> dict[str, int]:
        """Since when the oldest ready job of each runner is ready, where somebody may have a turn."""
        runners = [runner for runner in self._backlog.gauges.waiting if self._backlog.has_ready(runner)]
        found = await asyncio.gather(*(self._queries.oldest_ready(runner) for runner in runners))
        # What is not committed yet has only just come.
        now = self._clock.now_ms()
        return {runner: one[1] if one else now for runner, one in zip(runners, found, strict=True)}

    async def result(self, job: Job) -> StoredResult | None:
        """What a finished job has written, None when nothing is kept."""
        return await self._queries.result(job.seq)

    async def prompt(self, job: Job) -> StoredText | None:
        """The whole prompt of a job."""
        return await self._queries.prompt(job.seq)

    async def request(self, job: Job) -> StoredText | None:
        """The body with which a backend is asked, as it is kept (``NewJob.request``)."""
        return await self._queries.request(job.seq)

    async def page(self, which: Filter, limit: int, offset: int, before: str | None = None) -> Page:
        """A page of the list, newest first; of the jobs that are older than ``before`` (an id), where that is named.
        One beyond the last is empty without a look at the jobs before it.
        """
        total = self._counted(which) if which.is_counted else None
        if total is not None and offset >= total:
            return Page([], total, is_capped=False)
        number = None if before is None else await self._queries.number_of(before)
        if not which.is_plain:
            page = await Search(self._queries, which, self._narrowest(which), limit, offset, number).page(total)
        else:
            # One more tells whether there are more: the total may lag behind the rows.
            found = await self._queries.page(which, limit + 1, offset, total, number)
            jobs = found[:limit]
            page = Page(jobs, total or 0, is_capped=False, after=jobs[-1].id if len(found) > limit else None)
        for job in page.jobs:
            self._row_cache.learn(job)
        return page

    async def search(self, owner: str, which: Filter, limit: int, offset: int, before: str | None = None) -> Page:
        """The same for an owner that searches for a text, which it does once at a time. Raises LimitReachedError."""
        async with self.search_turns.turn(owner):
            return await self.page(which, limit, offset, before)

    def _narrowest(self, which: Filter) -> str:
        """The condition with an index that finds the fewest jobs; "" for none."""
        widths = {name: self._counted(alone) for name, alone in which.alone().items()}
        return min(widths, key=widths.__getitem__, default="")

    def _counted(self, which: Filter) -> int:
        total = self._backlog.gauges.total
        counted = sum(total(status, which.model_key, which.owner) for status in which.statuses or (None,))
        # Another process's word of a job may come after this one has ended it.
        return max(0, counted)

    async def _view_of_row(self, job: Job) -> View:
        if not is_ready(job):
            return View(job, None)
        calm = self._backlog.ranks.calm()
        standing = await self._queries.standing(job.id)
        return await self.viewed(standing, calm) if standing is not None else View(job, None)

    async def viewed(self, standing: Standing, calm: int | None = None) -> View:
        job, rank = standing
        if not is_ready(job):
            self._row_cache.learn(job)
            return View(job, None)
        if self._row_cache.get(job.id) in (None, job):
            # A rank is believed only if nothing has moved while the database was asked.
            is_certain = calm is not None and calm == self._backlog.ranks.calm()
            stamp = self._backlog.ranks.stamp(job.line) if is_certain else None
            self._row_cache.put(job, rank, self._clock.now_ms(), stamp)
        return await self._ready_view(job, rank)

    async def _ready_view(self, job: Job, rank: int) -> View:
        if rank < EXACT_RANK:
            return self.queued_view(job, job.line, rank)
        now = self._clock.now_ms()
        oldest = self._known_oldest(job.line, now)
        if oldest is None:
            oldest = await self._queries.oldest_of_line(job.line) or job.seq
            if len(self._oldest) >= _MOST_LINES:
                self._oldest.clear()
            self._oldest[job.line] = (oldest, now + _OLDEST_MS)
        return self._distant_view(job, rank, oldest)

    def _known_oldest(self, line: Line, now: int) -> int | None:
        oldest, until = self._oldest.get(line, (0, 0))
        return oldest if now < until else None

    def _distant_view(self, job: Job, rank: int, oldest: int) -> View:
        """Beyond what is counted: where its number lies between the line's oldest and the newest of all."""
        share = (job.seq - oldest) / max(1, self._backlog.newest - oldest)
        rank = max(rank, int(share * (self._backlog.gauges.ready(job.line) - 1)))
        return self.queued_view(job, job.line, rank, is_exact=False)

    def first_view(self, job: Job) -> View:
        """A new job that takes a free seat at once, as it stood when it came: nobody goes before it."""
        return View(job, 1, True, self._estimates.start_seconds(job.runner, 0))

    def queued_view(self, job: Job, line: Line, rank: int, *, is_exact: bool = True) -> View:
        """A ready job of this line, before which ``rank`` others of it wait."""
        ahead = self._estimates.ahead(line, rank)
        is_exact = is_exact and not self._backlog.waits.is_mixed(line)
        return View(job, 1 + ahead, is_exact, self._estimates.start_seconds(line.runner, ahead))
