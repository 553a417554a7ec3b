"""What the dispatcher and the workers do with jobs: claim, finish, put back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence

from service.errors import (
    CannotStoreError,
    StoppingError,
    StoreError,
)
from service.job import Claimed, Job, Line, Outcome, Status
from service.jobs.ledger import STOPPING, Core
from service.jobs.records import Retry
from service.jobs.repeats import reply_to_keep
from service.live.outputs import Output
from service.live.relay import Relay
from service.queue.backlog import Pick
from service.scheduling.assignment import Running
from service.store.idempotency import KeptReply

_log = logging.getLogger(__name__)


class Attempts(Core):
    """A job's way through its attempts."""

    def pick(self, runner: str, doubtful: Collection[Line] = ()) -> Pick | None:
        """Whose turn it is among those who wait for a runner: charged at once, and to be claimed or given back.

        ``doubtful`` are lines to pass over.
        """
        waiting = self._gauges.waiting.get(runner, {})
        without = self.key_limits.held_lines(runner, waiting)
        if doubtful:
            without = {*without, *(line for line in doubtful if line.runner == runner)}
        line = self._order.pick(runner, waiting, without)
        if line is None:
            return None
        self._gauges.add_ready(line, -1)
        self._row_cache.take(line)
        self.key_limits.take(line.owner)
        return Pick(line, self._order.charge(line, self._clock.now_ms()))

    def _give_back(self, pick: Pick) -> None:
        """The turn could not be used."""
        self._gauges.add_ready(pick.line, 1)
        self.key_limits.free(pick.line.owner)
        self._order.refund(pick.line, pick.charged_ms)

    @property
    def waiting(self) -> Mapping[str, Mapping[str, Mapping[int, int]]]:
        """Ready jobs by runner, owner and priority: read it, and never keep it."""
        return self._gauges.waiting

    @property
    def has_waiting(self) -> bool:
        """Whether any job could be claimed."""
        # Asked for every reply, and mostly nothing waits.
        waiting = self._gauges.waiting
        return bool(waiting) and any(map(self.has_ready, waiting))

    def has_ready(self, runner: str) -> bool:
        """Whether any job waits for this runner, and not for its key alone."""
        return self.key_limits.any_may_run(self._gauges.waiting.get(runner, ()))

    async def waiting_since(self, *, is_alone: bool = True) -> dict[str, int]:
        """Since when the oldest ready job of each runner is ready; for a lone runner since now, as nobody asks."""
        runners = [runner for runner in self._gauges.waiting if self.has_ready(runner)]
        now = self._clock.now_ms()
        if not runners or (len(runners) == 1 and is_alone):
            return dict.fromkeys(runners, now)
        oldest = await asyncio.gather(*(self._store.queries.oldest_ready(runner) for runner in runners))
        # What is not committed yet has only just come.
        return {runner: found[1] if found else now for runner, found in zip(runners, oldest, strict=True)}

    async def claim(self, picks: Sequence[Pick]) -> list[Running]:
        """Make the oldest ready jobs of the picks' one line this process's own; fewer when they are gone meanwhile.

        Raises CannotStoreError; the picks are given back then.
        """
        line = picks[0].line
        claimed: list[Claimed] = []
        try:
            claimed = await self._tracked(self._store.claim(line, len(picks), self._clock.now_ms()))
            self.store_trouble = None
        except CannotStoreError as error:
            self._note_trouble(error)
            raise
        finally:
            for pick in picks[len(claimed) :]:
                self._give_back(pick)
            self._row_cache.taken(line, len(picks), len(claimed))
        begun = []
        for one, pick in zip(claimed, picks, strict=False):
            job = one.job
            self._gauges.move(line, Status.QUEUED, Status.PROCESSING, job.size)
            relay = self._relays.get(job.id)
            if relay is None and job.on_disconnect is not None:
                # Its caller waited before a restart, and may come back with its idempotency key.
                relay = self._relays[job.id] = Relay(is_kept=True, readers=0)
            running = Running(one, Output(job.attempt, self.limits.max_output_bytes), pick.charged_ms, relay)
            self._running[job.id] = running
            begun.append(running)
            self._announce(job, Status.QUEUED, ready=-1)
        return begun

    async def finish(self, running: Running, outcome: Outcome) -> None:
        """Store how an attempt ended, then tell. What cannot be stored waits, and keeps its seat, until it can."""
        now = self._clock.now_ms()
        job = running.job
        relay = running.relay
        reply = await reply_to_keep(relay) if relay is not None and relay.is_kept else None
        finished = await self._until_stored(
            lambda: self._finish_stored(job, outcome, now, reply, is_urgent=relay is None)
        )
        self._end(running, now, is_typical=outcome.status == Status.COMPLETED, load_ms=outcome.counts.load_ms or 0)
        if finished is not None:
            self._capacity.finished(now)
            self._gauges.move(job.line, Status.PROCESSING, finished.status, job.size)
            self._announce(finished, Status.PROCESSING)

    def let_go(self, running: Running) -> None:
        """The attempt ended because its job is final already."""
        self._end(running, self._clock.now_ms(), is_typical=False)

    async def put_back(self, running: Running, retry: Retry | None = None) -> None:
        """Queue a running job again: at once and without a failure, or as ``retry`` says."""
        now = self._clock.now_ms()
        job = running.job
        if retry is None:
            back = await self._until_stored(lambda: self._store.put_back(job, now))
        else:
            back = await self._until_stored(
                lambda: self._store.put_back(
                    job,
                    now,
                    failures=retry.failures,
                    crashes=retry.crashes,
                    not_before=retry.not_before,
                    error_code=retry.error.code,
                    error_message=str(retry.error),
                )
            )
        self._end(running, now, is_typical=False)
        if self._is_stopping and running.relay is not None:
            running.relay.fail(StoppingError(STOPPING))
        if back is not None:
            self._returned(back, Status.PROCESSING, now)

    async def _finish_stored(
        self, job: Job, outcome: Outcome, now: int, reply: KeptReply | None, *, is_urgent: bool
    ) -> Job | None:
        try:
            return await self._store.finish(job, outcome, now, reply, is_urgent=is_urgent)
        except StoreError as error:
            _log.error("the outcome of job %s was refused by the database: %s", job.id, error)
            failed = Outcome(Status.FAILED, error_code="internal_error", error_message="the result could not be stored")
            return await self._store.finish(job, failed, now)

    def _end(self, running: Running, now: int, *, is_typical: bool, load_ms: int = 0) -> None:
        """The seat is done with this attempt; whoever reads its output keeps reading what is there.

        A load is everybody's: nobody pays for it, and it is no part of what a job costs.
        """
        job = running.job
        used_ms = max(1, now - (job.started_at or now) - load_ms)
        self._order.correct(job.line, running.charged_ms, used_ms, is_typical=is_typical)
        self._note_served(job.line)
        self._running.pop(job.id, None)
        if self.key_limits.free(job.owner):
            self._wake_dispatcher()
        running.output.close()
