"""Removing jobs at once, with everything that was stored or is remembered of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from service.clock import Clock
from service.job import FINAL, Status
from service.jobs.cancelling import UNFINISHED
from service.jobs.finding import found_ids
from service.jobs.ledger import Ledger
from service.jobs.records import LOOK_AGAIN
from service.jobs.row_cache import RowCache
from service.jobs.submission import ON_REQUEST, Submission
from service.queue.backlog import Backlog
from service.queue.gauges import Gauge
from service.store.contents import AT_ONCE, ContentStore
from service.store.job_filters import Filter
from service.store.jobs import JobStore

_MOST_PASSES = 10
"""Through all jobs, until one finds nothing: jobs cannot slip through so often, and no request may go on for ever."""
_ENDING_SECONDS = 10.0
"""How long the attempt of a cancelled job is waited for. Only one that has to sit out a load takes longer; it cannot
write anything about a job that is gone.
"""


class Purged(NamedTuple):
    """What came of a purge."""

    jobs: int
    is_erased: bool
    """Nothing is left of them in the database's files either."""


class Purging:
    """Ends jobs where they have not ended, and removes them."""

    def __init__(
        self,
        store: JobStore,
        contents: ContentStore,
        ledger: Ledger,
        backlog: Backlog,
        row_cache: RowCache,
        submission: Submission,
        clock: Clock,
    ) -> None:
        self._store = store
        self._contents = contents
        self._ledger = ledger
        self._backlog = backlog
        self._row_cache = row_cache
        self._submission = submission
        self._clock = clock

    async def purge(self, job_id: str) -> Purged:
        """Remove a job. Raises CannotStoreError."""
        gone = await self._remove([job_id])
        return Purged(len(gone), not gone or await self._contents.erase())

    async def purge_all(self, which: Filter, statuses: Sequence[Status], gone: list[str]) -> Purged:
        """Remove the jobs that a filter finds, of those that were there at the call. The id of each joins ``gone`` when
        it is, also when it does not come to the end; and what is gone is erased then, too. Raises CannotStoreError.
        """
        newest = await self._store.queries.newest()
        try:
            for _ in range(_MOST_PASSES):
                # One that begins or ends meanwhile may have passed by all lookups. Where not all that it may become is
                # asked for, it is left alone.
                before = len(gone)
                await self._once(which, statuses, newest, gone)
                if len(gone) == before or not (set(statuses) & set(UNFINISHED)):
                    break
        finally:
            erased = self._contents.erase() if gone else None
        return Purged(len(gone), erased is None or await erased)

    async def _once(self, which: Filter, statuses: Sequence[Status], newest: int, gone: list[str]) -> None:
        loop = asyncio.get_running_loop()
        for status in statuses:
            async for ids in found_ids(self._store.queries, which._replace(statuses=(str(status),)), newest):
                for start in range(0, len(ids), AT_ONCE):
                    begun = loop.time()
                    gone += await self._remove(ids[start : start + AT_ONCE], is_final=status in FINAL)
                    # It rests as long as it has worked: half of the time at least is everybody else's.
                    await asyncio.sleep(loop.time() - begun)

    async def _remove(self, ids: Sequence[str], *, is_final: bool = False) -> list[str]:
        if not is_final:
            await asyncio.gather(*(self._submission.was_cancelled(job_id, ON_REQUEST) for job_id in ids))
            await self._until_ended(ids)
        gone = await self._ledger.tracked(self._contents.purge(ids, self._clock.now_ms()))
        for job in gone:
            self._backlog.leave(Gauge(job.line, job.status, 1, job.size))
            self._row_cache.forget(job.id)
            self._ledger.tell_of_loss(job)
        if gone:
            self._store.tell(LOOK_AGAIN)
        return [job.id for job in gone]

    async def _until_ended(self, ids: Iterable[str]) -> None:
        """Wait until no attempt of these jobs holds anything of them here, but for those that sit out a load."""
        ending = [future for job_id in ids if (future := self._ledger.ending(job_id)) is not None]
        if ending:
            await asyncio.wait(ending, timeout=_ENDING_SECONDS)
