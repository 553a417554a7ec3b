"""What happens to jobs by themselves: they fall due, expire, are rescued, pruned and counted."""

from __future__ import annotations

from service.clock import Clock
from service.job import Status
from service.jobs.ledger import Ledger
from service.jobs.records import LOOK_AGAIN
from service.jobs.row_cache import RowCache
from service.queue.backlog import Backlog, was_ready
from service.store.jobs import PRUNED_AT_ONCE, JobStore


class Upkeep:
    """The upkeep of the queue."""

    def __init__(self, store: JobStore, ledger: Ledger, backlog: Backlog, row_cache: RowCache, clock: Clock) -> None:
        self._store = store
        self._ledger = ledger
        self._backlog = backlog
        self._row_cache = row_cache
        self._clock = clock
        self._has_pruned = False
        """Something was, since it was last erased."""

    async def tend(self) -> int | None:
        """Make ready what is due and fail what has expired; when to look again (milliseconds since the epoch)."""
        now = self._clock.now_ms()
        due, deadline = await self._store.queries.next_due()
        if due is not None and due <= now:
            for job in await self._ledger.tracked(self._store.promote(now)):
                self._ledger.changed(job, Status.QUEUED, ready=1)
        if deadline is not None and deadline <= now:
            for job in await self._ledger.tracked(self._store.expire(now)):
                self._ledger.changed(job, Status.QUEUED, ready=-int(was_ready(job)))
        if (due is not None and due <= now) or (deadline is not None and deadline <= now):
            due, deadline = await self._store.queries.next_due()
        return min((time for time in (due, deadline) if time is not None), default=None)

    async def rescue(self, processes: list[str]) -> int:
        """Queue the jobs of dead processes again; how many jobs were touched."""
        touched = 0
        now = self._clock.now_ms()
        for process in processes:
            for job, before in await self._ledger.tracked(self._store.rescue(process, now)):
                touched += 1
                if job.status == Status.QUEUED:
                    self._ledger.returned(job, before)
                else:
                    # It was not ready for anybody else while its caller waited for it.
                    self._ledger.changed(job, before)
        return touched

    async def prune(self, before: int) -> int:
        """Forget a batch of jobs that finished before then; how many."""
        pruned = await self._ledger.tracked(self._store.prune(before))
        if pruned:
            self._row_cache.clear()
        for gauge in pruned:
            self._backlog.leave(gauge)
        if pruned:
            self._store.tell(LOOK_AGAIN)
            self._has_pruned = True
        if self._has_pruned and len(pruned) < PRUNED_AT_ONCE:
            # These were the last.
            self._has_pruned = False
            await self._store.erase()
        return len(pruned)

    async def recount(self) -> bool:
        """Set the gauges from the rows, unless something changes meanwhile: then another time; whether they are set."""
        # What is under way may be stored behind what is read now, and be done before that is here.
        before = self._ledger.quiet_since
        gauges, held = await self._store.queries.gauges()
        newest = await self._store.queries.newest()
        if before is None or self._ledger.quiet_since != before:
            return False
        self._backlog.count(gauges, held, newest)
        return True

    async def has_missed(self) -> bool:
        """Whether a ready job is stored that the gauges do not know of."""
        is_quiet = self._ledger.quiet_since is not None
        return not self._backlog.gauges.waiting and is_quiet and await self._store.queries.has_ready()
