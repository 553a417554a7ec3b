"""Jobs come in, and are called off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from service.errors import (
    CannotStoreError,
    ServiceError,
    StoppingError,
    UniqueViolationError,
)
from service.job import Claimed, Job, Line, NewJob, Status, line_of, model_key, new_job_id
from service.jobs.ledger import STOPPING, Core
from service.jobs.records import Change, Entered, View
from service.live.outputs import Output
from service.live.relay import Relay
from service.queue.ranks import Stamp
from service.scheduling.assignment import Running
from service.store.database import Answers, Statement
from service.store.idempotency import RequestKey, remember
from service.store.jobs import numbered


class Submission(Core):
    """Submit and cancel."""

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
        self._check_room(len(new.request), new.owner)
        now = self._clock.now_ms()
        line = line_of(new.runner or model_key(new.model), new.owner, int(new.priority))
        is_ready = new.not_before is None or new.not_before <= now
        if is_ready and new.not_before is not None:
            new = new._replace(not_before=None)
        job_id = new_job_id(now)
        also = remember(asked, job_id, now, instead_of) if asked is not None else ()
        # Another process may be asked with the same key at this moment; then the database says whose job it is.
        is_certain = asked is None or self._store.is_exclusive
        ahead = self._gauges.ready(line)
        # Who has others of his own before him need not look any further; and while nothing can be stored, no backend is
        # given work that would be thrown away.
        is_next = not ahead and self.key_limits.may_run(line.owner)
        if is_ready and is_certain and is_next and self.store_trouble is None:
            start = self._start_at_once(line)
            if start is not None:
                return self._enter_running(new, job_id, now, line, relay, start, also)
        # Where writes keep their order, the gauges and the dispatcher hear of a job before it is on disk: its claim can
        # then share the insert's commit. Nobody else hears of it before.
        is_ahead = is_certain and self._store.keeps_order
        return self._enter_queued(new, job_id, now, line, relay, also, ahead, is_ready=is_ready, is_ahead=is_ahead)

    def _enter_queued(
        self,
        new: NewJob,
        job_id: str,
        now: int,
        line: Line,
        relay: Relay | None,
        also: Sequence[Statement],
        ahead: int,
        *,
        is_ready: bool,
        is_ahead: bool,
    ) -> Entered:
        size = len(new.request)
        if relay is not None:
            self._relays[job_id] = relay
        if is_ahead:
            self._arrive(line, size, now, ahead, is_ready=is_ready)
        stamp = self._row_cache.stamp(line)

        def settle(answers: Answers, error: ServiceError | None) -> None:
            self._write_ends()
            if error is not None:
                if is_ahead:
                    self._gauges.leave(line, Status.QUEUED, size, was_ready=is_ready)
                    self._row_cache.disturb(line)
                self._not_stored(job_id, relay, error)
                return
            if not is_ahead:
                self._arrive(line, size, now, self._gauges.ready(line), is_ready=is_ready)
            view = entered.view = entered.view.numbered(answers)
            self._stored(view, now, ahead if is_ready else None, stamp)
            if not is_ready or view.job.deadline is not None:
                self._look_due()

        job, written = self._store.insert(new, job_id, now, also=also, settle=settle)
        self._write_begins()
        # Its place is looked up now: when it is on disk it may have been claimed already.
        entered = Entered(self._queued_view(job, line, ahead) if is_ready else View(job, None), written)
        return entered

    def _enter_running(
        self,
        new: NewJob,
        job_id: str,
        now: int,
        line: Line,
        relay: Relay | None,
        start: Callable[[Running], None],
        also: Sequence[Statement],
    ) -> Entered:
        """The call begins while its row is on its way to the disk; the caller hears nothing before it is there.

        One who does not wait for the reply is told how it stood when it came, and everybody else both changes.
        """

        def settle(answers: Answers, error: ServiceError | None) -> None:
            self._write_ends()
            if error is not None:
                self._gauges.leave(line, Status.PROCESSING, size, was_ready=False)
                running.is_cancelled = True
                stored.set_exception(error)
                stored.exception()
                if running.stop is not None:
                    running.stop()
                self._not_stored(job_id, relay, error)
                return
            running.job = numbered(begun, answers)
            # The caller is answered before the worker goes on to what is left to do.
            stored.get_loop().call_soon(stored.set_result, None)
            came = entered.view = entered.view.numbered(answers)
            if relay is None:
                self._hub.publish(came.job, came.position, came.estimated_start_seconds)
            self._stored(View(running.job, None), now)

        # The disk is given its work first: it needs longer than the caller's first byte.
        begun, written = self._store.insert(new, job_id, now, is_started=True, also=also, settle=settle)
        self._write_begins()
        entered = Entered(
            View(begun, None) if relay is not None else self._queued_view(_as_it_came(begun), line, 0), written
        )
        self._order.begin_waiting(line, now, {})
        charged_ms = self._order.charge(line, now)
        self.key_limits.take(line.owner)
        size = len(new.request)
        self._gauges.arrive(line, Status.PROCESSING, size, is_ready=False)
        running = Running(
            Claimed(begun, new.request), Output(begun.attempt, self.limits.max_output_bytes), charged_ms, relay
        )
        stored = running.stored = asyncio.get_running_loop().create_future()
        self._running[job_id] = running
        if relay is not None:
            self._relays[job_id] = relay
        start(running)
        return entered

    def _not_stored(self, job_id: str, relay: Relay | None, error: ServiceError) -> None:
        self._relays.pop(job_id, None)
        self._note_trouble(error)
        # Whose request another process has made into a job reads on in that one's stead, or tries again with this.
        if relay is not None and not isinstance(error, UniqueViolationError):
            relay.fail(error)

    def _stored(self, view: View, now: int, rank: int | None = None, stamp: Stamp | None = None) -> None:
        job = view.job
        self.store_trouble = None
        if self._row_cache.get(job.id) is None:
            self._row_cache.put(job, rank, now, stamp)
        if job.seq > self._newest:
            self._newest = job.seq
        self._hub.publish(job, view.position, view.estimated_start_seconds)
        if self._tell_others is not None:
            ready = int(job.status == Status.QUEUED and job.not_before is None)
            self._tell_others(str(Change(job.seq, None, job.status, ready)))

    async def cancel(self, job_id: str) -> Job:
        """End a job unless it is final already; its row afterwards. Raises NotFoundError, CannotStoreError."""
        view = await self.view(job_id)
        if view.job.is_final:
            return view.job
        return await self._cancel(view.job, "cancelled", "cancelled on request") or (await self.view(job_id)).job

    async def abandon(self, job: Job) -> None:
        """The waiting caller of this job is gone: cancel it unless it is final already."""
        await self._cancel(job, "disconnected", "the caller closed the connection")

    def stop_accepting(self) -> None:
        """From now on every submission is refused, and whoever waits for a turn is told that it will not come."""
        self._is_stopping = True
        for job_id, relay in self._relays.items():
            if job_id not in self._running:
                relay.fail(StoppingError(STOPPING))

    def _check_room(self, size: int, owner: str) -> None:
        if self._is_stopping:
            raise StoppingError(STOPPING)
        self._capacity.check(self.limits, size, owner)

    async def _cancel(self, job: Job, code: str, message: str) -> Job | None:
        running = self._running.get(job.id)
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
        before = Status.QUEUED if cancelled.worker is None else Status.PROCESSING
        ready = -int(cancelled.worker is None and cancelled.not_before is None)
        self._move(cancelled, before, ready, self._clock.now_ms())
        # It may have been claimed while the cancel was under way.
        running = self._running.get(job.id)
        if running is not None:
            running.is_cancelled = True
            if running.stop is not None:
                running.stop()
        self._announce(cancelled, before, ready)
        return cancelled


def _as_it_came(begun: Job) -> Job:
    """The row of a job that is begun already, before it was."""
    return begun._replace(status=str(Status.QUEUED), attempt=0, worker=None, started_at=None)
