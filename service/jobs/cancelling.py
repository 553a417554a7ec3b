"""Calling off many jobs at once, in small batches between other work."""

from __future__ import annotations

import asyncio

from service.job import Status
from service.jobs.submission import Submission
from service.store.job_filters import Filter
from service.store.job_queries import JobQueries

_MOST_IDS = 10_000
"""Jobs that are looked up at a time."""
_BATCH = 16
"""Cancelled together; other writes share their commits."""
UNFINISHED = (Status.QUEUED, Status.PROCESSING)


class Cancelling:
    """Calls off the unfinished jobs that a filter finds."""

    def __init__(self, queries: JobQueries, submission: Submission) -> None:
        self._queries = queries
        self._submission = submission

    async def cancel(self, which: Filter, statuses: tuple[Status, ...]) -> int:
        """How many were cancelled, of those that were there at the call. Raises CannotStoreError."""
        newest, cancelled = await self._queries.newest(), 0
        for status in statuses:
            # Each is looked up once: a job that begins because another was cancelled is left alone.
            first, wanted, is_more = 0, which._replace(statuses=(str(status),)), True
            while is_more:
                found = await self._queries.ids(wanted, first, newest, _MOST_IDS)
                cancelled += await self._cancel([job_id for _, job_id in found])
                is_more = len(found) == _MOST_IDS
                first = found[-1][0] + 1 if found else newest
        return cancelled

    async def _cancel(self, ids: list[str]) -> int:
        loop, cancelled = asyncio.get_running_loop(), 0
        for start in range(0, len(ids), _BATCH):
            begun = loop.time()
            batch = (self._submission.was_cancelled(job_id) for job_id in ids[start : start + _BATCH])
            cancelled += sum(await asyncio.gather(*batch))
            # It rests as long as it has worked: half of the time at least is everybody else's.
            await asyncio.sleep(loop.time() - begun)
        return cancelled
