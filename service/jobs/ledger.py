"""What all parts of the core share: the store, the gauges, the order, who runs and who is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.clock import Clock
from service.errors import CannotStoreError
from service.job import Job, Line, Status
from service.jobs.records import Change, conclude
from service.jobs.views import Views
from service.live.following import Follower
from service.live.hub import Hub
from service.live.outputs import Output, Position
from service.live.relay import Relay
from service.metrics.values import Metrics
from service.queue import Order
from service.queue.capacity import Capacity, QueueLimits
from service.queue.gauges import Gauges
from service.queue.key_limits import KeyLimits
from service.scheduling.assignment import Running
from service.store.jobs import JobStore

_log = logging.getLogger(__name__)

STOPPING = "the service is stopping; try again in a moment"
_STORE_AGAIN_SECONDS = 0.5

_Stored = TypeVar("_Stored")


class Core(Views):
    """The state of the core; its parts are Submission, Attempts and Upkeep."""

    def __init__(
        self,
        store: JobStore,
        gauges: Gauges,
        order: Order,
        hub: Hub,
        clock: Clock,
        limits: QueueLimits,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(store, gauges, order, clock)
        self._hub = hub
        self.limits = limits
        self._metrics = metrics or Metrics()
        self._capacity = Capacity(gauges, clock)
        self.key_limits = KeyLimits()
        self._running: dict[str, Running] = {}
        self._relays: dict[str, Relay] = {}
        self._asking: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._wake_dispatcher: Callable[[], None] = lambda: None
        self._look_due: Callable[[], None] = lambda: None
        self._tell_others: Callable[[str], None] | None = None
        self._note_served: Callable[[Line], None] = lambda _line: None
        self._correct: Callable[[Line], None] = lambda line: None
        self._start_at_once: Callable[[Line], Callable[[Running], None] | None] = lambda _line: None
        self._is_stopping = False
        self._is_counted = False
        """Whether the gauges were set from the rows since the start."""
        self._has_outcomes_waiting = False
        self._under_way = 0
        self._changes = 0
        self.store_trouble: str | None = None
        """Why the last write failed; None when it did not."""

    def when_ready(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when a job may be ready to be claimed, or a seat may be free."""
        self._wake_dispatcher = wake

    def when_served(self, note: Callable[[Line], None]) -> None:
        """Have ``note`` called when the order has changed by the end of a job of this line."""
        self._note_served = note

    def when_entered(self, start: Callable[[Line], Callable[[Running], None] | None]) -> None:
        """Have ``start`` called for a new job that is ready: how to begin it at once, None when it must queue."""
        self._start_at_once = start

    def when_delayed(self, look: Callable[[], None]) -> None:
        """Have ``look`` called when a job will be due or expire, so that :meth:`tend` can say when."""
        self._look_due = look

    def when_changed(self, tell: Callable[[str], None]) -> None:
        """Have ``tell`` called with each stored change, for the other processes that share the database."""
        self._tell_others = tell

    def when_corrected(self, trust: Callable[[Line], None]) -> None:
        """Have ``trust`` called when another process has told what became of a line's jobs."""
        self._correct = trust

    def follow(self, job: Job, position: Position | None, wake: Callable[[], None]) -> Follower:
        """A reader of this job's events from ``position``, or from the beginning of its present attempt."""
        return Follower(self._store.queries, self._hub, self, job, position, wake)

    def output_of(self, job_id: str) -> Output | None:
        """The output of a job that runs here."""
        running = self._running.get(job_id)
        return running.output if running else None

    @property
    def running(self) -> int:
        """How many jobs this process works on."""
        return len(self._running)

    async def _tracked(self, write: Awaitable[_Stored]) -> _Stored:
        """Every write goes through here, but for those of new jobs, which are settled without their caller."""
        self._write_begins()
        try:
            return await write
        finally:
            self._write_ends()

    def _write_begins(self) -> None:
        """Said of every write, so that nobody counts rows while gauges and rows are apart."""
        self._under_way += 1
        self._changes += 1

    def _write_ends(self) -> None:
        self._under_way -= 1

    async def _until_stored(self, write: Callable[[], Awaitable[Job | None]]) -> Job | None:
        while True:
            try:
                stored = await self._tracked(write())
            except CannotStoreError as error:
                if not self._has_outcomes_waiting:
                    self._has_outcomes_waiting = True
                    _log.error("an outcome waits in memory: %s", error)
                self._note_trouble(error)
                await asyncio.sleep(_STORE_AGAIN_SECONDS)
            else:
                self._has_outcomes_waiting = False
                self.store_trouble = None
                return stored

    def _arrive(self, line: Line, size: int, now: int, ahead: int, *, is_ready: bool) -> None:
        """A new job is in the queue; ``ahead`` of its line were ready before."""
        if is_ready and not ahead:
            self._order.begin_waiting(line, now, self._gauges.waiting.get(line.runner, {}))
        self._gauges.arrive(line, Status.QUEUED, size, is_ready=is_ready)
        self._wake_dispatcher()

    def _returned(self, job: Job, before: str, now: int) -> None:
        ready = int(job.not_before is None)
        self._move(job, before, ready, now)
        self._announce(job, before, ready)
        if ready:
            self._wake_dispatcher()
        else:
            self._look_due()

    def _move(self, job: Job, before: str, ready: int, now: int) -> None:
        """Move the gauges with a job; ``ready`` is what its line gains or loses in jobs that are ready."""
        here = ready if self._store.may_claim(job) else 0
        if ready:
            self._row_cache.disturb(job.line)
        if here > 0:
            self._order.begin_waiting(job.line, now, self._gauges.waiting.get(job.runner, {}))
        if before == job.status:
            self._gauges.add_ready(job.line, here)
        else:
            self._gauges.move(job.line, before, job.status, job.size, ready=here)

    def _tell(self, change: Change | str) -> None:
        """Tell the other processes, where there are any."""
        if self._tell_others is not None:
            self._tell_others(str(change))

    def _announce(self, job: Job, before: str | None, ready: int = 0) -> None:
        """Tell of a change that is stored; ``before`` is the status before it, None for a new job."""
        self._tell(Change(job.seq, before, job.status, ready))
        if job.is_final:
            self._measure(job)
        self._publish(job)

    def _publish(self, job: Job) -> None:
        """Tell those who listen in this process."""
        self._row_cache.put(job)
        self._hub.publish(job)
        if job.is_final:
            relay = self._relays.pop(job.id, None)
            if relay is not None:
                conclude(relay, job)

    def _measure(self, job: Job) -> None:
        model = self._metrics.of_model(job.model_key)
        model.ended[job.status] = model.ended.get(job.status, 0) + 1
        if job.status != Status.COMPLETED or job.started_at is None:
            return
        model.wait_seconds.observe((job.started_at - job.created_at) / 1000)
        if job.first_token_at is not None:
            model.first_token_seconds.observe((job.first_token_at - job.created_at) / 1000)
        if job.completion_tokens and job.generation_ms:
            model.tokens_per_second.observe(job.completion_tokens * 1000 / job.generation_ms)

    def _note_trouble(self, error: BaseException) -> None:
        if isinstance(error, CannotStoreError):
            self.store_trouble = str(error)
