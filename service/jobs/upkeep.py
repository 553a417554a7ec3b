"""What happens to jobs by themselves: they fall due, expire, are rescued, pruned and counted."""

from __future__ import annotations

from service.job import Line, Status
from service.jobs.core import Core


class Upkeep(Core):
    """The upkeep of the queue."""

    async def tend(self) -> int | None:
        """Make ready what is due and fail what has expired; when to look again (milliseconds since the epoch)."""
        now = self._clock.now_ms()
        due, deadline = await self._store.next_due()
        if due is not None and due <= now:
            for job in await self._tracked(self._store.promote(now)):
                self._order.begin_waiting(job.line, now, self._gauges.waiting.get(job.runner, {}))
                self._gauges.add_ready(job.line, 1)
                self._announce(job)
        if deadline is not None and deadline <= now:
            for job in await self._tracked(self._store.expire(now)):
                self._gauges.move(
                    job.line, Status.QUEUED, job.status, job.size, ready=-1 if job.not_before is None else 0
                )
                self._announce(job)
        if (due is not None and due <= now) or (deadline is not None and deadline <= now):
            due, deadline = await self._store.next_due()
        return min((time for time in (due, deadline) if time is not None), default=None)

    async def rescue(self, workers: list[str]) -> int:
        """Queue the jobs of dead processes again; how many jobs were touched."""
        touched = 0
        now = self._clock.now_ms()
        for worker in workers:
            for job in await self._tracked(self._store.rescue(worker, now)):
                touched += 1
                if job.status == Status.QUEUED:
                    self._returned(job, Status.PROCESSING, now)
                else:
                    self._gauges.move(job.line, Status.PROCESSING, job.status, job.size)
                    self._announce(job)
        return touched

    async def lost_workers(self) -> list[str]:
        """Other processes that own running jobs."""
        return await self._store.lost_workers()

    async def prune(self, before: int) -> int:
        """Forget a batch of jobs that finished before then; how many."""
        pruned = await self._tracked(self._store.prune(before))
        for gauge in pruned:
            self._gauges.leave(gauge.line, gauge.status, gauge.size, was_ready=False)
        return len(pruned)

    async def recount(self) -> None:
        """Set the gauges from the rows, unless something changes meanwhile: then another time."""
        changes = self._changes
        gauges, delayed = await self._store.gauges()
        newest = await self._store.newest()
        if self._under_way or changes != self._changes:
            return
        self._newest = newest
        self._gauges.set(gauges, delayed)
        now = self._clock.now_ms()
        for runner, owners in self._gauges.waiting.items():
            for owner, priorities in owners.items():
                for priority in priorities:
                    self._order.begin_waiting(Line(runner, owner, priority), now, {})

    async def has_missed(self) -> bool:
        """Whether a ready job is stored that the gauges do not know of."""
        return not self._gauges.waiting and not self._under_way and await self._store.has_ready()
