"""The core: the only place where a job's status changes. Stored first, then announced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from service.clock import Clock
from service.errors import (
    CannotStoreError,
    CorralError,
    QueueFullError,
    StoppingError,
    StoreError,
)
from service.following import Follower
from service.hub import Hub
from service.job import Claimed, Job, Line, NewJob, Outcome, Status, model_key, new_job_id
from service.jobs.records import Limits, Pick, Retry, Running, View
from service.jobs.views import JobViews
from service.order import Order
from service.outputs import Output, Position
from service.store.gauges import Gauges
from service.store.jobs import JobStore

_log = logging.getLogger(__name__)

_STORE_AGAIN_SECONDS = 0.5

_Stored = TypeVar("_Stored")


class Jobs(JobViews):
    """Submit, look at, follow, cancel, begin, finish and retry jobs."""

    def __init__(self, store: JobStore, gauges: Gauges, order: Order, hub: Hub, clock: Clock, limits: Limits) -> None:
        super().__init__(store, gauges, order)
        self._hub = hub
        self._clock = clock
        self.limits = limits
        self._running: dict[int, Running] = {}
        self._wake_dispatcher: Callable[[], None] = lambda: None
        self._look_due: Callable[[], None] = lambda: None
        self._is_stopping = False
        self._under_way = 0
        self._changes = 0
        self.store_trouble: str | None = None
        """Why the last write failed; None when it did not."""

    def when_ready(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when a job may be ready to be claimed, or a seat may be free."""
        self._wake_dispatcher = wake

    def when_delayed(self, look: Callable[[], None]) -> None:
        """Have ``look`` called when a job will be due or expire, so that :meth:`tend` can say when."""
        self._look_due = look

    # Submitting and looking

    async def submit(self, new: NewJob) -> View:
        """Store a job; it is on disk when this returns.

        Raises QueueFullError, StoppingError, CannotStoreError.
        """
        self._check_room(len(new.request))
        now = self._clock.now_ms()
        line = Line(new.runner or model_key(new.model), new.owner, int(new.priority))
        is_ready = new.not_before is None or new.not_before <= now
        if is_ready and new.not_before is not None:
            new = new._replace(not_before=None)
        size = len(new.request)
        # Where writes keep their order, the gauges and the dispatcher hear of a job before it is on disk: its
        # claim can then share the
        # insert's commit. Nobody else hears of it before.
        is_ahead = self._store.keeps_order
        if is_ahead:
            self._arrive(line, size, now, is_ready=is_ready)
        ahead = self._gauges.ready(line) - is_ahead
        try:
            job = await self._tracked(self._store.insert(new, new_job_id(now), now))
        except CorralError as error:
            # Not for a cancelled caller: its row is on its way to the disk all the same.
            if is_ahead:
                self._gauges.leave(line, Status.QUEUED, size, was_ready=is_ready)
            self._note_trouble(error)
            raise
        if not is_ahead:
            self._arrive(line, size, now, is_ready=is_ready)
        self.store_trouble = None
        self._newest = max(self._newest, job.seq)
        self._hub.publish(job)
        if not is_ready or job.deadline is not None:
            self._look_due()
        return View(job, self._position(line, ahead) if is_ready else None)

    def follow(self, job: Job, position: Position | None, wake: Callable[[], None]) -> Follower:
        """A reader of this job's events from ``position``, or from the beginning of its present attempt."""
        return Follower(self._store, self._hub, self, job, position, wake)

    def output_of(self, seq: int) -> Output | None:
        """The output of a job that runs here."""
        running = self._running.get(seq)
        return running.output if running else None

    @property
    def running(self) -> int:
        """How many jobs this process works on."""
        return len(self._running)

    async def cancel(self, job_id: str) -> Job:
        """End a job unless it is final already; its row afterwards. Raises NotFoundError, CannotStoreError."""
        view = await self.view(job_id)
        if view.job.is_final:
            return view.job
        return await self._cancel(view.job, "cancelled", "cancelled on request") or (await self.view(job_id)).job

    async def abandon(self, job: Job) -> None:
        """The waiting caller of this job is gone: cancel it unless it is final already."""
        await self._cancel(job, "disconnected", "the caller closed the connection")

    # Running: called by the dispatcher and the workers

    def pick(self, runner: str) -> Pick | None:
        """Whose turn it is among those who wait for a runner: charged at once, and to be claimed or given back."""
        line = self._order.pick(runner, self._gauges.waiting.get(runner, {}))
        if line is None:
            return None
        self._gauges.add_ready(line, -1)
        return Pick(line, self._order.charge(line, self._clock.now_ms()))

    def give_back(self, pick: Pick) -> None:
        """The turn could not be used."""
        self._gauges.add_ready(pick.line, 1)
        self._order.refund(pick.line, pick.charged_ms)

    def has_ready(self, runner: str) -> bool:
        """Whether any job waits for this runner."""
        return runner in self._gauges.waiting

    async def waiting_since(self) -> dict[str, int]:
        """Since when the oldest ready job of each runner is ready; for a lone runner since now, as nobody asks."""
        runners = list(self._gauges.waiting)
        now = self._clock.now_ms()
        if len(runners) < 2:
            return dict.fromkeys(runners, now)
        oldest = await asyncio.gather(*(self._store.oldest_ready(runner) for runner in runners))
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
                self.give_back(pick)
        begun = []
        for one, pick in zip(claimed, picks, strict=False):
            job = one.job
            self._gauges.move(line, Status.QUEUED, Status.PROCESSING, job.size)
            running = Running(one, Output(job.attempt, self.limits.max_output_bytes), pick.charged_ms)
            self._running[job.seq] = running
            begun.append(running)
            self._hub.publish(job)
        return begun

    async def finish(self, running: Running, outcome: Outcome) -> None:
        """Store how an attempt ended, then tell. What cannot be stored waits, and keeps its seat, until it can."""
        now = self._clock.now_ms()
        job = running.job
        finished = await self._until_stored(lambda: self._finish_stored(job, outcome, now))
        self._end(running, now, is_typical=outcome.status == Status.COMPLETED)
        if finished is not None:
            self._gauges.move(job.line, Status.PROCESSING, finished.status, job.size)
            self._hub.publish(finished)

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
        if back is not None:
            self._returned(back, Status.PROCESSING, now)

    async def tend(self) -> int | None:
        """Make ready what is due and fail what has expired; when to look again (milliseconds since the epoch)."""
        now = self._clock.now_ms()
        due, deadline = await self._store.next_due()
        if due is not None and due <= now:
            for job in await self._tracked(self._store.promote(now)):
                self._order.begin_waiting(job.line, now, self._gauges.waiting.get(job.runner, {}))
                self._gauges.add_ready(job.line, 1)
                self._hub.publish(job)
        if deadline is not None and deadline <= now:
            for job in await self._tracked(self._store.expire(now)):
                self._gauges.move(
                    job.line, Status.QUEUED, job.status, job.size, ready=-1 if job.not_before is None else 0
                )
                self._hub.publish(job)
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
                    self._hub.publish(job)
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

    def stop_accepting(self) -> None:
        """From now on every submission is refused."""
        self._is_stopping = True

    # Within

    def _check_room(self, size: int) -> None:
        if self._is_stopping:
            raise StoppingError("the service is stopping; try again in a moment")
        if self._gauges.total(Status.QUEUED) >= self.limits.max_queued:
            raise QueueFullError(f"the queue is full: {self.limits.max_queued} jobs wait; try again later")
        if self._gauges.queued_bytes + size > self.limits.max_queued_bytes:
            raise QueueFullError(
                f"the queue is full: requests of {self.limits.max_queued_bytes} bytes wait; try again later"
            )

    def _arrive(self, line: Line, size: int, now: int, *, is_ready: bool) -> None:
        if is_ready:
            self._order.begin_waiting(line, now, self._gauges.waiting.get(line.runner, {}))
        self._gauges.arrive(line, Status.QUEUED, size, is_ready=is_ready)
        self._wake_dispatcher()

    def _returned(self, job: Job, before: str, now: int) -> None:
        is_ready = job.not_before is None
        if is_ready:
            self._order.begin_waiting(job.line, now, self._gauges.waiting.get(job.runner, {}))
        self._gauges.move(job.line, before, Status.QUEUED, job.size, ready=int(is_ready))
        self._hub.publish(job)
        if is_ready:
            self._wake_dispatcher()
        else:
            self._look_due()

    async def _cancel(self, job: Job, code: str, message: str) -> Job | None:
        running = self._running.get(job.seq)
        segments = running.output.segments() if running else ()
        attempt = running.job.attempt if running else 0
        try:
            cancelled = await self._tracked(
                self._store.cancel(job.id, self._clock.now_ms(), segments, attempt, code=code, message=message)
            )
        except CannotStoreError as error:
            self._note_trouble(error)
            raise
        if cancelled is None:
            return None
        was_ready = cancelled.worker is None and cancelled.not_before is None
        before = Status.QUEUED if cancelled.worker is None else Status.PROCESSING
        self._gauges.move(cancelled.line, before, Status.CANCELLED, cancelled.size, ready=-int(was_ready))
        # It may have been claimed while the cancel was under way.
        running = self._running.get(job.seq)
        if running is not None:
            running.is_cancelled = True
            if running.stop is not None:
                running.stop()
        self._hub.publish(cancelled)
        return cancelled

    async def _finish_stored(self, job: Job, outcome: Outcome, now: int) -> Job | None:
        try:
            return await self._store.finish(job, outcome, now)
        except StoreError as error:
            _log.error("the outcome of job %s was refused by the database: %s", job.id, error)
            failed = Outcome(Status.FAILED, error_code="internal_error", error_message="the result could not be stored")
            return await self._store.finish(job, failed, now)

    async def _tracked(self, write: Awaitable[_Stored]) -> _Stored:
        """Every write goes through here, so that nobody counts rows while gauges and rows are apart."""
        self._under_way += 1
        self._changes += 1
        try:
            return await write
        finally:
            self._under_way -= 1

    async def _until_stored(self, write: Callable[[], Awaitable[Job | None]]) -> Job | None:
        while True:
            try:
                stored = await self._tracked(write())
            except CannotStoreError as error:
                if self.store_trouble is None:
                    _log.error("an outcome waits in memory: %s", error)
                self._note_trouble(error)
                await asyncio.sleep(_STORE_AGAIN_SECONDS)
            else:
                self.store_trouble = None
                return stored

    def _end(self, running: Running, now: int, *, is_typical: bool) -> None:
        """The seat is done with this attempt; whoever reads its output keeps reading what is there."""
        job = running.job
        used_ms = max(1, now - (job.started_at or now))
        self._order.correct(job.line, running.charged_ms, used_ms, is_typical=is_typical)
        self._running.pop(job.seq, None)
        running.output.close()

    def _note_trouble(self, error: BaseException) -> None:
        if isinstance(error, CannotStoreError):
            self.store_trouble = str(error)
