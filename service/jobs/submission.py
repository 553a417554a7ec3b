"""Jobs come in, and are called off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from service.clock import Clock
from service.errors import CannotStoreError, NotFoundError, ServiceError, StoppingError, UniqueViolationError
from service.job import Claimed, Job, Line, NewJob, Status, line_of, model_key, new_job_id
from service.jobs.ledger import STOPPING, Ledger
from service.jobs.records import Entered, View
from service.jobs.row_cache import RowCache
from service.jobs.views import Views
from service.live.hub import Hub
from service.live.outputs import Output
from service.live.relay import Relay
from service.queue.backlog import Backlog, Pick, is_ready, was_ready
from service.queue.gauges import Gauge
from service.queue.ranks import Stamp
from service.scheduling.assignment import Assignment, Running
from service.scheduling.scheduler import Scheduler
from service.store.database import Answers, Statement
from service.store.idempotency import RequestKey, remember
from service.store.jobs import JobStore, numbered


class Reason(NamedTuple):
    """Why a job was cancelled: a stable word for programs, and words for people."""

    code: str
    message: str


ON_REQUEST = Reason("cancelled", "cancelled on request")
GONE = Reason("disconnected", "the caller closed the connection")
REVOKED = Reason("revoked", "its API key was revoked")


class Submission:
    """Submit and cancel. A job that finds a free seat begins while its row is on its way to the disk."""

    def __init__(
        self,
        store: JobStore,
        ledger: Ledger,
        backlog: Backlog,
        row_cache: RowCache,
        views: Views,
        scheduler: Scheduler,
        hand_off: asyncio.Queue[Assignment],
        hub: Hub,
        clock: Clock,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._backlog = backlog
        self._row_cache = row_cache
        self._views = views
        self._scheduler = scheduler
        self._hand_off = hand_off
        self._hub = hub
        self._clock = clock
        self.storing: set[Entered] = set()
        """The jobs that are on their way to the disk."""

    async def submit(
        self, new: NewJob, relay: Relay | None = None, asked: RequestKey | None = None, instead_of: str | None = None
    ) -> View:
        """Store a job; it is on disk when this returns. See :meth:`enter`, whose errors it raises, too."""
        return await self.enter(new, relay, asked, instead_of).stored()

    def enter(
        self, new: NewJob, relay: Relay | None = None, asked: RequestKey | None = None, instead_of: str | None = None
    ) -> Entered:
        """Begin to store a job. ``relay`` is filled with the backend's reply as it comes. ``asked`` is stored with it,
        in place of the key's earlier job where that is named.

        Raises QueueFullError, LimitReachedError and StoppingError; waiting until it is stored raises CannotStoreError,
        and UniqueViolationError when ``asked`` is there already.
        """
        if self._ledger.is_stopping:
            raise StoppingError(STOPPING)
        self._backlog.check_capacity(len(new.request), new.owner, is_admins=new.is_admins)
        now = self._clock.now_ms()
        line = line_of(new.runner or model_key(new.model), new.owner, int(new.priority))
        if new.not_before is not None and new.not_before <= now:
            new = new._replace(not_before=None)
        job_id = new_job_id(now)
        also = remember(asked, job_id, now, instead_of) if asked is not None else ()
        # Another process may be asked with the same key at this moment; then the database says whose job it is.
        is_certain = asked is None or self._store.is_exclusive
        # While nothing can be stored, no backend is given work that would be thrown away.
        if (
            is_certain
            and new.not_before is None
            and self._ledger.store_trouble is None
            and self._backlog.may_start(line)
        ):
            reserved = self._scheduler.reserve(line)
            if reserved is not None:
                pick = self._backlog.start(line, len(new.request), now, pays_load=reserved.pays_load)
                entered, running = self._enter_running(new, job_id, now, pick, relay, also)
                self._hand_off.put_nowait(Assignment(running, reserved.backend, reserved.trial))
                return entered
        return self._enter_queued(new, job_id, now, line, relay, also, is_certain=is_certain)

    async def cancel(self, job_id: str) -> Job:
        """End a job unless it is final already; its row afterwards. Raises NotFoundError, CannotStoreError."""
        view = await self._views.view(job_id)
        if view.job.is_final:
            return view.job
        return await self._cancel(view.job, ON_REQUEST) or (await self._views.view(job_id)).job

    async def was_cancelled(self, job_id: str, reason: Reason) -> bool:
        """End a job, whether it is there or not; whether that has changed anything. Raises CannotStoreError."""
        try:
            view = await self._views.view(job_id)
        except NotFoundError:
            return False
        return not view.job.is_final and await self._cancel(view.job, reason) is not None

    async def abandon(self, job: Job) -> None:
        """The waiting caller of this job is gone: cancel it unless it is final already."""
        await self._cancel(job, GONE)

    async def until_earlier_is_stored(self) -> None:
        """Wait until every job that was entered before is on disk, or cannot be. Where processes share a database, one
        of another may still come later.
        """
        # Each is waited for: other writes may go before large jobs, and before many.
        if self.storing:
            await asyncio.wait([entered.written for entered in self.storing])

    def stop_accepting(self) -> None:
        """From now on every submission is refused, and whoever waits for a turn is told that it will not come."""
        self._ledger.is_stopping = True
        for job_id, relay in self._ledger.relays.items():
            if job_id not in self._ledger.running:
                relay.fail(StoppingError(STOPPING))

    def stored(self, view: View, now: int, rank: int | None = None, stamp: Stamp | None = None) -> None:
        """A new job is on disk: remember it, with its place where that is known (``rank``, ``stamp``), and tell all."""
        job = view.job
        self._ledger.store_trouble = None
        if self._row_cache.get(job.id) is None:
            self._row_cache.put(job, rank, now, stamp)
        if job.seq > self._backlog.newest:
            self._backlog.newest = job.seq
        self._hub.publish(job, view.position, view.estimated_start_seconds)
        self._ledger.tell_others(job, None, int(is_ready(job)))

    def not_stored(self, job_id: str, relay: Relay | None, error: ServiceError) -> None:
        """There is no such job, as its caller is told."""
        self._ledger.relays.pop(job_id, None)
        self._ledger.note_trouble(error)
        # A caller whose request became a job in another process reads on in that one's stead, or tries again with this.
        if relay is not None and not isinstance(error, UniqueViolationError):
            relay.fail(error)

    def _enter_queued(
        self,
        new: NewJob,
        job_id: str,
        now: int,
        line: Line,
        relay: Relay | None,
        also: Sequence[Statement],
        *,
        is_certain: bool,
    ) -> Entered:
        if relay is not None:
            self._ledger.relays[job_id] = relay
        job = self._store.new_job(new, job_id, now)
        ahead = self._backlog.gauges.ready(line)
        # Where writes keep their order, the backlog hears of a job before it is on disk: its claim can then share the
        # insert's commit. Nobody else hears of it before.
        is_ahead = is_certain and self._store.keeps_order
        if is_ahead:
            self._backlog.arrive(line, job.size, now, is_ready=is_ready(job))
        entered = Entered(View(job, None))
        settlement = _QueuedSettlement(self, self._ledger, self._backlog, entered, line, relay, now, ahead, is_ahead)
        self._ledger.write_begins()
        entered.written = self._store.insert(job, new, also=also, settle=settlement)
        self.storing.add(entered)
        if is_ready(job):
            # Its place is looked up now: when it is on disk it may have been claimed already.
            entered.view = self._views.queued_view(job, line, ahead)
        return entered

    def _enter_running(
        self, new: NewJob, job_id: str, now: int, pick: Pick, relay: Relay | None, also: Sequence[Statement]
    ) -> tuple[Entered, Running]:
        """The call begins while its row is on its way to the disk; the caller hears nothing before it is there.

        A caller that does not wait for the reply is told how the job stood when it came, and everybody else hears both
        changes.
        """
        begun = self._store.new_job(new, job_id, now, is_started=True)
        entered = Entered(View(begun, None))
        output = Output(begun.attempt, self._backlog.limits.max_output_bytes)
        running = Running(Claimed(begun, new.request), output, pick, relay)
        stored = running.stored = asyncio.get_running_loop().create_future()
        self._ledger.running[job_id] = running
        if relay is not None:
            self._ledger.relays[job_id] = relay
        settlement = _BegunSettlement(self, self._ledger, self._backlog, self._hub, entered, running, stored, now)
        self._ledger.write_begins()
        entered.written = self._store.insert(begun, new, also=also, settle=settlement)
        self.storing.add(entered)
        if relay is None:
            entered.view = self._views.first_view(_as_it_came(begun))
        return entered, running

    async def _cancel(self, job: Job, reason: Reason) -> Job | None:
        running = self._ledger.running.get(job.id)
        segments = running.output.segments() if running else ()
        attempt = running.job.attempt if running else 0
        try:
            now = self._clock.now_ms()
            cancelled = await self._ledger.tracked(
                self._store.cancel(job.id, now, segments, attempt, code=reason.code, message=reason.message)
            )
        except CannotStoreError as error:
            self._ledger.note_trouble(error)
            raise
        if cancelled is None:
            return None
        # It may have been claimed while the cancel was under way.
        running = self._ledger.running.get(job.id)
        if running is not None:
            running.call_off()
        before = Status.QUEUED if cancelled.worker is None else Status.PROCESSING
        self._ledger.changed(cancelled, before, ready=-int(was_ready(cancelled)))
        return cancelled


class _QueuedSettlement:
    """What follows when the row of a job that waits is on disk, or cannot be."""

    __slots__ = (
        "_ahead",
        "_backlog",
        "_entered",
        "_is_ahead",
        "_ledger",
        "_line",
        "_now",
        "_relay",
        "_stamp",
        "_submission",
    )

    def __init__(
        self,
        submission: Submission,
        ledger: Ledger,
        backlog: Backlog,
        entered: Entered,
        line: Line,
        relay: Relay | None,
        now: int,
        ahead: int,
        is_ahead: bool,
    ) -> None:
        self._submission = submission
        self._ledger = ledger
        self._backlog = backlog
        self._entered = entered
        self._line = line
        self._relay = relay
        self._now = now
        self._ahead = ahead
        self._is_ahead = is_ahead
        self._stamp = backlog.ranks.stamp(line)

    def __call__(self, answers: Answers, error: ServiceError | None) -> None:
        self._ledger.write_ends()
        self._submission.storing.discard(self._entered)
        job = self._entered.view.job
        waits = is_ready(job)
        if error is not None:
            if self._is_ahead:
                self._backlog.leave(Gauge(self._line, Status.QUEUED, 1, job.size), was_ready=waits)
            self._submission.not_stored(job.id, self._relay, error)
            return
        if not self._is_ahead:
            self._backlog.arrive(self._line, job.size, self._now, is_ready=waits)
        view = self._entered.view = self._entered.view.numbered(answers)
        self._submission.stored(view, self._now, self._ahead if waits else None, self._stamp)
        if not waits or job.deadline is not None:
            self._backlog.due_changed.set()


class _BegunSettlement:
    """What follows when the row of a job that has begun is on disk, or cannot be."""

    __slots__ = ("_backlog", "_entered", "_hub", "_ledger", "_now", "_running", "_stored", "_submission")

    def __init__(
        self,
        submission: Submission,
        ledger: Ledger,
        backlog: Backlog,
        hub: Hub,
        entered: Entered,
        running: Running,
        stored: asyncio.Future[None],
        now: int,
    ) -> None:
        self._submission = submission
        self._ledger = ledger
        self._backlog = backlog
        self._hub = hub
        self._entered = entered
        self._running = running
        self._stored = stored
        self._now = now

    def __call__(self, answers: Answers, error: ServiceError | None) -> None:
        self._ledger.write_ends()
        self._submission.storing.discard(self._entered)
        running, stored, begun = self._running, self._stored, self._running.job
        if error is not None:
            self._backlog.leave(Gauge(begun.line, Status.PROCESSING, 1, begun.size))
            stored.set_exception(error)
            stored.exception()
            running.call_off()
            self._submission.not_stored(begun.id, running.relay, error)
            return
        running.job = numbered(begun, answers)
        # The caller is answered before the worker goes on to what is left to do.
        stored.get_loop().call_soon(stored.set_result, None)
        came = self._entered.view = self._entered.view.numbered(answers)
        if running.relay is None:
            self._hub.publish(came.job, came.position, came.estimated_start_seconds)
        self._submission.stored(View(running.job, None), self._now)


def _as_it_came(begun: Job) -> Job:
    """The row of a job that is begun already, before it was."""
    return begun._replace(status=str(Status.QUEUED), attempt=0, worker=None, started_at=None)
