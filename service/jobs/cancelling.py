"""Calling off many jobs at once, in small batches between other work."""

from __future__ import annotations

import asyncio

from service.job import Status
from service.jobs.submission import Submission
from service.store.job_queries import Filter, JobQueries

_MOST_IDS = 10_000
"""Jobs that are looked up at a time."""
_BATCH = 16
"""Cancelled together. Other writes share their commits, and come between two batches."""
UNFINISHED = (Status.QUEUED, Status.PROCESSING)


class Cancelling:
    """Calls off the unfinished jobs that a filter finds."""

    def __init__(self, queries: JobQueries, submission: Submission) -> None:
        self._queries = queries
        self._submission = submission

    async def cancel(self, which: Filter, statuses: tuple[Status, ...]) -> int:
        """How many were cancelled, of those that were there at the call. Raises CannotStoreError."""
        newest = await self._queries.newest()
        cancelled, known = 0, set[str]()
        for status in statuses:
            while ids := await self._queries.ids(which._replace(status=str(status)), newest, _MOST_IDS):
                ids = [job_id for job_id in ids if job_id not in known]
                if not ids:
                    break
                known.update(ids)
                for start in range(0, len(ids), _BATCH):
                    batch = (self._submission.was_cancelled(job_id) for job_id in ids[start : start + _BATCH])
                    cancelled += sum(await asyncio.gather(*batch))
        return cancelled
