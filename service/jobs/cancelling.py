"""Calling off many jobs at once, in small batches between other work."""

from __future__ import annotations

import asyncio

from service.job import Status
from service.jobs.finding import found_ids
from service.jobs.submission import ON_REQUEST, Reason, Submission
from service.store.job_filters import Filter
from service.store.job_queries import JobQueries

_BATCH = 16
"""Cancelled together; other writes share their commits."""
_MOST_PASSES = 10
"""Through all jobs, until one finds nothing: jobs cannot slip through so often, and no request may go on for ever."""
UNFINISHED = (Status.QUEUED, Status.PROCESSING)


class Cancelling:
    """Calls off the unfinished jobs that a filter finds."""

    def __init__(self, queries: JobQueries, submission: Submission) -> None:
        self._queries = queries
        self._submission = submission

    async def cancel(self, which: Filter, statuses: tuple[Status, ...], reason: Reason = ON_REQUEST) -> int:
        """How many were cancelled, of those that were there at the call. Raises CannotStoreError."""
        newest, cancelled, passes = await self._queries.newest(), 0, 0
        while True:
            found, ended = await self._once(which, statuses, newest, reason)
            cancelled, passes = cancelled + ended, passes + 1
            # A job that goes back to the queue, and one that begins, may have passed by both lookups. Where only one
            # status is asked for it is left alone: it had the other, or begins because another job was cancelled.
            if not found or passes == _MOST_PASSES or not set(UNFINISHED) <= set(statuses):
                return cancelled

    async def count(self, which: Filter, statuses: tuple[Status, ...]) -> int:
        """How many would be cancelled now."""
        newest, found = await self._queries.newest(), 0
        for status in statuses:
            async for ids in found_ids(self._queries, which._replace(statuses=(str(status),)), newest):
                found += len(ids)
        return found

    async def _once(self, which: Filter, statuses: tuple[Status, ...], newest: int, reason: Reason) -> tuple[int, int]:
        """Look each status up once: how many jobs were found, and how many of them cancelled."""
        looked_at = cancelled = 0
        for status in statuses:
            async for ids in found_ids(self._queries, which._replace(statuses=(str(status),)), newest):
                looked_at += len(ids)
                cancelled += await self._cancel(ids, reason)
        return looked_at, cancelled

    async def _cancel(self, ids: list[str], reason: Reason) -> int:
        loop, cancelled = asyncio.get_running_loop(), 0
        for start in range(0, len(ids), _BATCH):
            begun = loop.time()
            batch = (self._submission.was_cancelled(job_id, reason) for job_id in ids[start : start + _BATCH])
            cancelled += sum(await asyncio.gather(*batch))
            # It rests as long as it has worked: half of the time at least is everybody else's.
            await asyncio.sleep(loop.time() - begun)
        return cancelled
