"""What happens to jobs by themselves: they fall due, expire, are rescued, pruned and counted."""

from __future__ import annotations

from service.job import Line, Status
from service.jobs.ledger import Core
from service.jobs.records import LOOK_AGAIN


class Upkeep(Core):
    """The upkeep of the queue."""

    async def tend(self) -> int | None:
        """Make ready what is due and fail what has expired; when to look again (milliseconds since the epoch)."""
        now = self._clock.now_ms()
        due, deadline = await self._store.queries.next_due()
        if due is not None and due <= now:
            for job in await self._tracked(self._store.promote(now)):
                self._move(job, Status.QUEUED, 1, now)
                self._announce(job, Status.QUEUED, ready=1)
        if deadline is not None and deadline <= now:
            for job in await self._tracked(self._store.expire(now)):
                ready = -int(job.not_before is None)
                self._move(job, Status.QUEUED, ready, now)
                self._announce(job, Status.QUEUED, ready)
        if (due is not None and due <= now) or (deadline is not None and deadline <= now):
            due, deadline = await self._store.queries.next_due()
        return min((time for time in (due, deadline) if time is not None), default=None)

    async def rescue(self, workers: list[str]) -> int:
        """Queue the jobs of dead processes again; how many jobs were touched."""
        touched = 0
        now = self._clock.now_ms()
        for worker in workers:
            for job, before in await self._tracked(self._store.rescue(worker, now)):
                touched += 1
                if job.status == Status.QUEUED:
                    self._returned(job, before, now)
                else:
                    # It was not ready for anybody else while its caller waited for it.
                    self._move(job, before, 0, now)
                    self._announce(job, before)
        return touched

    async def prune(self, before: int) -> int:
        """Forget a batch of jobs that finished before then; how many."""
        pruned = await self._tracked(self._store.prune(before))
        if pruned:
            self._row_cache.clear()
        for gauge in pruned:
            self._gauges.leave(gauge.line, gauge.status, gauge.size, was_ready=False)
        if pruned:
            self._tell(LOOK_AGAIN)
        return len(pruned)

    async def recount(self) -> bool:
        """Set the gauges from the rows, unless something changes meanwhile: then another time; whether they are set."""
        # What is under way may be stored behind what is read now, and be done before that is here.
        was_calm, changes = not self._under_way, self._changes
        gauges, delayed = await self._store.queries.gauges()
        newest = await self._store.queries.newest()
        if not was_calm or self._under_way or changes != self._changes:
            return False
        self._newest = newest
        before = {
            runner: {owner: dict(lines) for owner, lines in owners.items()}
            for runner, owners in self._gauges.waiting.items()
        }
        self._gauges.set(gauges, delayed)
        now = self._clock.now_ms()
        for runner, owners in self._gauges.waiting.items():
            known = before.get(runner, {})
            for owner, priorities in owners.items():
                for priority in priorities:
                    line = Line(runner, owner, priority)
                    # Who waited already, here or before a restart, keeps what it has.
                    if not self._is_counted or priority in known.get(owner, {}):
                        self._order.keep_waiting(line, now)
                    else:
                        self._order.begin_waiting(line, now, known)
        self._is_counted = True
        return True

    async def has_missed(self) -> bool:
        """Whether a ready job is stored that the gauges do not know of."""
        return not self._gauges.waiting and not self._under_way and await self._store.queries.has_ready()
