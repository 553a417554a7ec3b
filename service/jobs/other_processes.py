"""What other processes that share the database did to jobs: the gauges, the followers and running attempts learn of it.

What was told is a hint; the rows are the truth. Where a change may have been missed, all that this process keeps in
memory is held against the rows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from service.clock import Clock
from service.errors import CallCancelledError, ServiceError
from service.job import Job, Status
from service.jobs.ledger import Ledger
from service.jobs.records import Change
from service.jobs.upkeep import Upkeep
from service.queue.backlog import Backlog
from service.scheduling.assignment import Running
from service.store.jobs import JobStore

_log = logging.getLogger(__name__)


class OtherProcesses:
    """Catching up with other processes. ``work`` is set when one of their changes may have left us something to do."""

    def __init__(
        self,
        store: JobStore,
        ledger: Ledger,
        backlog: Backlog,
        upkeep: Upkeep,
        clock: Clock,
        work: asyncio.Event,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._backlog = backlog
        self._upkeep = upkeep
        self._clock = clock
        self._work = work

    async def catch_up(self, changes: Sequence[Change]) -> bool:
        """Take over changes that others have stored; whether all of them were found."""
        return await self._ledger.tracked(self._catch_up(changes))

    async def look_again(self) -> bool:
        """Hold what runs here, who waits here and the gauges against the rows; whether nothing changed meanwhile."""
        for running in tuple(self._ledger.running.values()):
            await self._check(running)
        await asyncio.gather(*(self._check_caller(job_id) for job_id in tuple(self._ledger.relays)))
        is_set = await self._upkeep.recount()
        self._work.set()
        return is_set

    async def _catch_up(self, changes: Sequence[Change]) -> bool:
        jobs = await self._store.queries.by_seqs({change.seq for change in changes})
        now = self._clock.now_ms()
        for change in changes:
            job = jobs.get(change.seq)
            if job is not None:
                self._clock.not_before(job.updated_at)
                self._take_over(change, job, now)
        for job in jobs.values():
            self._backlog.newest = max(self._backlog.newest, job.seq)
            running = self._ledger.running.get(job.id)
            if running is not None:
                await self._stop_if_over(running, job)
            self._ledger.publish(job)
        return len(jobs) == len({change.seq for change in changes})

    def _take_over(self, change: Change, job: Job, now: int) -> None:
        """Move what is counted by one change; the row may stand further already."""
        as_told = job._replace(status=change.after)
        self._backlog.moved(as_told, change.before, change.ready, now)
        if change.before == Status.PROCESSING and as_told.is_final:
            self._backlog.finished(now)
        if change.ready:
            self._backlog.trust(job.line)
        if change.ready > 0:
            self._work.set()
        if change.after == Status.QUEUED and (job.not_before is not None or job.deadline is not None):
            self._backlog.due_changed.set()

    async def _stop_if_over(self, running: Running, job: Job) -> None:
        """End an attempt whose job another process has cancelled, or taken back for dead."""
        attempt = running.job.attempt
        if job.attempt < attempt or (job.attempt == attempt and job.status == Status.PROCESSING):
            return
        if running.is_cancelled:
            return
        running.call_off()
        if job.status == Status.CANCELLED and job.attempt == attempt:
            try:
                await self._store.keep_output(job, running.output.segments())
            except ServiceError as error:
                _log.warning("what the cancelled job %s had written could not be stored: %s", job.id, error)

    async def _check(self, running: Running) -> None:
        if running.job.seq:
            found = await self._store.queries.by_seqs((running.job.seq,))
            job = found.get(running.job.seq)
            if job is not None:
                await self._stop_if_over(running, job)
            elif not running.is_cancelled:
                # Another process has purged it.
                running.call_off()

    async def _check_caller(self, job_id: str) -> None:
        if job_id in self._ledger.running:
            return
        standing = await self._store.queries.standing(job_id)
        if standing is not None and standing.job.is_final:
            self._ledger.publish(standing.job)
        elif standing is None and (relay := self._ledger.relays.get(job_id)) is not None:
            # It may be on its way to the disk. Else another process has purged it.
            await self._store.write_nothing()
            if await self._store.queries.standing(job_id) is None and self._ledger.relays.get(job_id) is relay:
                del self._ledger.relays[job_id]
                relay.fail(CallCancelledError("request canceled"))
