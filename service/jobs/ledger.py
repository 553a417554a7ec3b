"""What all parts of the core share: who runs, who waits for a reply, and who is told of a stored change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.clock import Clock
from service.errors import CannotStoreError
from service.job import Job, Status
from service.jobs.records import Change, conclude
from service.jobs.row_cache import RowCache
from service.live.following import Follower
from service.live.hub import Hub
from service.live.outputs import Output, Position
from service.live.relay import Relay
from service.metrics.values import Metrics
from service.queue.backlog import Backlog, is_ready
from service.scheduling.assignment import Running
from service.store.jobs import JobStore

_log = logging.getLogger(__name__)

STOPPING = "the service is stopping; try again in a moment"
_STORE_AGAIN_SECONDS = 0.5

_Stored = TypeVar("_Stored")


class Ledger:
    """Every change of a job is stored first, and then announced here."""

    def __init__(
        self, store: JobStore, backlog: Backlog, row_cache: RowCache, hub: Hub, clock: Clock, metrics: Metrics
    ) -> None:
        self._store = store
        self._backlog = backlog
        self._row_cache = row_cache
        self._hub = hub
        self._clock = clock
        self._metrics = metrics
        self.running: dict[str, Running] = {}
        """The jobs that this process works on, by id: a submission or a claim adds one, the end of its attempt takes it
        away.
        """
        self.relays: dict[str, Relay] = {}
        """The replies for which callers wait, by the id of the job, until that is final."""
        self.is_stopping = False
        self.store_trouble: str | None = None
        """Why the last write failed; None when it did not."""
        self._has_outcomes_waiting = False
        self._under_way = 0
        self._changes = 0

    # Who is there

    def follow(self, job: Job, position: Position | None, wake: Callable[[], None]) -> Follower:
        """A reader of this job's events from ``position``, or from the beginning of its present attempt."""
        return Follower(self._store.queries, self._hub, self, job, position, wake)

    def output_of(self, job_id: str) -> Output | None:
        """The output of a job that runs here."""
        running = self.running.get(job_id)
        return running.output if running else None

    # Writing

    @property
    def quiet_since(self) -> int | None:
        """A number that stays the same as long as nothing is written; None while something is being written."""
        return None if self._under_way else self._changes

    async def tracked(self, write: Awaitable[_Stored]) -> _Stored:
        """Every write goes through here, but for those of new jobs, which are settled without their caller."""
        self.write_begins()
        try:
            return await write
        finally:
            self.write_ends()

    def write_begins(self) -> None:
        """Said of every write, so that nobody counts rows while gauges and rows are apart."""
        self._under_way += 1
        self._changes += 1

    def write_ends(self) -> None:
        self._under_way -= 1

    async def until_stored(self, write: Callable[[], Awaitable[Job | None]]) -> Job | None:
        """Write an outcome, again and again until the database takes it; None when the job was not there any more."""
        while True:
            try:
                stored = await self.tracked(write())
            except CannotStoreError as error:
                if not self._has_outcomes_waiting:
                    self._has_outcomes_waiting = True
                    _log.error("an outcome waits in memory: %s", error)
                self.note_trouble(error)
                await asyncio.sleep(_STORE_AGAIN_SECONDS)
            else:
                self._has_outcomes_waiting = False
                self.store_trouble = None
                return stored

    def note_trouble(self, error: BaseException) -> None:
        """A write has failed: while nothing can be stored, /health says why."""
        if isinstance(error, CannotStoreError):
            self.store_trouble = str(error)

    # Telling

    def changed(self, job: Job, before: str, ready: int = 0) -> None:
        """A change is stored: move what is counted, and tell everybody. ``ready`` is what the job's line gains or loses
        by it in jobs that are ready.
        """
        self._backlog.moved(job, before, ready, self._clock.now_ms())
        self.announce(job, before, ready)

    def returned(self, job: Job, before: str) -> None:
        """A job that ran is queued again."""
        self.changed(job, before, int(is_ready(job)))
        self._backlog.returned(job)

    def announce(self, job: Job, before: str, ready: int = 0) -> None:
        """Tell of a change that is stored, and counted already."""
        self.tell_others(job, before, ready)
        if job.is_final:
            self._measure(job)
        self.publish(job)

    def tell_others(self, job: Job, before: str | None, ready: int) -> None:
        """Tell the other processes, where there are any; ``before`` is None for a job that is new."""
        if not self._store.is_exclusive:
            self._store.tell(str(Change(job.seq, before, job.status, ready)))

    def publish(self, job: Job) -> None:
        """Tell those who listen in this process."""
        # Never what was asked or answered; a model's name is the caller's text.
        _log.debug("job %s is %s, attempt %d: %s %r", job.id, job.status, job.attempt, job.endpoint, job.model)
        self._row_cache.put(job)
        self._hub.publish(job)
        if job.is_final:
            relay = self.relays.pop(job.id, None)
            if relay is not None:
                conclude(relay, job)
                relay.settle()

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
