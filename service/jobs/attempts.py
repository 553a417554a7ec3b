"""What the dispatcher and the workers do with jobs: claim, finish, put back."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from service.clock import Clock
from service.errors import CannotStoreError, StoppingError, StoreError
from service.job import Claimed, Job, Outcome, Status
from service.jobs.kept_replies import keep_reply
from service.jobs.ledger import STOPPING, Ledger
from service.jobs.records import Retry
from service.live.outputs import Output
from service.live.relay import Relay
from service.queue.backlog import Backlog, Pick
from service.scheduling.assignment import Running
from service.store.idempotency import KeptReply
from service.store.jobs import JobStore

_log = logging.getLogger(__name__)


class Attempts:
    """A job's way through its attempts."""

    def __init__(self, store: JobStore, ledger: Ledger, backlog: Backlog, clock: Clock) -> None:
        self._store = store
        self._ledger = ledger
        self._backlog = backlog
        self._clock = clock

    async def claim(self, picks: Sequence[Pick], passed_over: Collection[str] = ()) -> list[Running]:
        """Make the oldest ready jobs of the picks' one line this process's own; fewer when they are gone meanwhile.
        ``passed_over`` are jobs to leave there.

        Raises CannotStoreError; the picks are given back then.
        """
        claimed: list[Claimed] = []
        try:
            claimed = await self._ledger.tracked(
                self._store.claim(picks[0].line, len(picks), self._clock.now_ms(), passed_over)
            )
            self._ledger.store_trouble = None
        except CannotStoreError as error:
            self._ledger.note_trouble(error)
            raise
        finally:
            self._backlog.claimed(picks, [one.job for one in claimed])
        begun = []
        for one, pick in zip(claimed, picks, strict=False):
            job, relays = one.job, self._ledger.relays
            relay = relays.get(job.id)
            if relay is None and job.on_disconnect is not None:
                # Its caller waited before a restart, and may come back with its idempotency key.
                relay = relays[job.id] = Relay(is_kept=True, readers=0)
            running = Running(one, Output(job.attempt, self._backlog.limits.max_output_bytes), pick, relay)
            self._ledger.running[job.id] = running
            begun.append(running)
            self._ledger.announce(job, Status.QUEUED, ready=-1)
        return begun

    async def finish(self, running: Running, outcome: Outcome) -> None:
        """Store how an attempt ended, then tell. What cannot be stored waits, and keeps its seat, until it can."""
        now = self._clock.now_ms()
        job = running.job
        relay = running.relay
        finished = await self._ledger.until_stored(lambda: self._finish_stored(job, outcome, now, relay))
        self._end(running, now, is_typical=outcome.status == Status.COMPLETED, load_ms=outcome.counts.load_ms or 0)
        if finished is not None:
            self._backlog.finished(now)
            self._ledger.changed(finished, Status.PROCESSING)

    def let_go(self, running: Running) -> None:
        """The attempt ended because its job is final already."""
        self._end(running, self._clock.now_ms(), is_typical=False)

    async def put_back(self, running: Running, retry: Retry | None = None) -> None:
        """Queue a running job again: at once and without a failure, or as ``retry`` says."""
        now = self._clock.now_ms()
        job = running.job
        if retry is None:
            back = await self._ledger.until_stored(lambda: self._store.put_back(job, now))
        else:
            back = await self._ledger.until_stored(
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
        if self._ledger.is_stopping and running.relay is not None:
            running.relay.fail(StoppingError(STOPPING))
        if back is not None:
            self._ledger.returned(back, Status.PROCESSING)

    async def _finish_stored(self, job: Job, outcome: Outcome, now: int, relay: Relay | None) -> Job | None:
        reply: KeptReply | None = None
        try:
            if relay is not None and relay.is_kept:
                reply = await keep_reply(self._store.idempotency, job.id, relay)
            return await self._store.finish(job, outcome, now, reply, is_urgent=relay is None)
        except StoreError as error:
            _log.error("the outcome of job %s was refused by the database: %s", job.id, error)
            failed = Outcome(Status.FAILED, error_code="internal_error", error_message="the result could not be stored")
            return await self._store.finish(job, failed, now)

    def _end(self, running: Running, now: int, *, is_typical: bool, load_ms: int = 0) -> None:
        """The seat is done with this attempt; whoever reads its output keeps reading what is there.

        A load is no part of what a job costs, and mostly it is everybody's: only who alone has wanted it pays for it.
        """
        job = running.job
        used_ms = max(1, now - (job.started_at or now) - load_ms)
        self._ledger.let_go(job.id)
        paid_ms = load_ms if running.pick.pays_load else 0
        self._backlog.end(job.line, running.pick.charged_ms, used_ms, is_typical=is_typical, load_ms=paid_ms)
        running.output.close()
