"""The consumers: each takes one handed-over job at a time, attempts it, and tells the core how the attempt ended."""

from __future__ import annotations

import asyncio
import logging
import random

from service.backend.pool import Pool
from service.clock import Clock
from service.config import RetryConfig, TimeoutsConfig
from service.errors import BackendError
from service.job import Outcome, Status, model_of_runner
from service.jobs import Jobs, Retry
from service.live.held_replies import HeldReplies
from service.scheduling.assignment import Assignment, Running
from service.workers.attempt import Attempt, AttemptEnd
from service.workers.hung_models import HungModels
from service.workers.retry_policy import Elsewhere, Fail, Failure, decide

_log = logging.getLogger(__name__)

_STORE_SECONDS = 5.0
"""How long a stop waits until outcomes are stored, after the time that the jobs are given to end."""


class Workers:
    """A bounded set of consumer coroutines."""

    def __init__(
        self,
        jobs: Jobs,
        pool: Pool,
        hand_off: asyncio.Queue[Assignment],
        clock: Clock,
        timeouts: TimeoutsConfig,
        retry: RetryConfig,
        replies: HeldReplies,
        *,
        holds_busy: bool = True,
    ) -> None:
        self._jobs = jobs
        self._pool = pool
        self._hand_off = hand_off
        self._clock = clock
        self._timeouts = timeouts
        self._retry = retry
        self._replies = replies
        self._holds_busy = holds_busy
        self._attempts: set[Attempt] = set()
        self._hung_models = HungModels(pool, clock, self._attempts)
        self._idle = asyncio.Event()
        self._idle.set()
        self._kept_for_load: set[Attempt] = set()
        pool.load_ended.connect(self._stop_after_load)
        self._consumers = 0
        self._seats_changed = asyncio.Event()

    async def run(self) -> None:
        """Work on what is handed over, with consumers for all seats, also when their number changes; never returns."""
        async with asyncio.TaskGroup() as consumers:
            while True:
                self._seats_changed.clear()
                for _ in range(self._pool.wanted_consumers - self._consumers):
                    self._consumers += 1
                    consumers.create_task(self._consume())
                await self._seats_changed.wait()

    async def drain(self, seconds: float) -> int:
        """Give running jobs ``seconds`` to end, then close their calls and queue them again.

        Returns how many could not be settled, since nothing could be stored: they stay ``processing``, and the next
        start rescues them.
        """
        self._hung_models.stop()
        settling = asyncio.create_task(self._settle())
        await asyncio.wait((settling,), timeout=seconds)
        for attempt in tuple(self._attempts):
            attempt.stop_at_once()
        await asyncio.wait((settling,), timeout=_STORE_SECONDS)
        if settling.done():
            settling.result()
            return 0
        settling.cancel()
        return len(self._jobs.ledger.running)

    def reconfigure(self, timeouts: TimeoutsConfig, retry: RetryConfig, *, holds_busy: bool) -> None:
        """Give these deadlines and retries to attempts that begin from now on. The number of seats may have changed."""
        self._timeouts = timeouts
        self._retry = retry
        self._holds_busy = holds_busy
        self._seats_changed.set()

    async def _settle(self) -> None:
        while not self._hand_off.empty():
            running, backend, trial = self._hand_off.get_nowait()
            await self._hand_back(running)
            backend.breakers.abandoned(model_of_runner(running.job.runner), trial)
            self._pool.free(backend, running.job.runner)
        await self._idle.wait()

    async def _consume(self) -> None:
        while self._consumers <= self._pool.wanted_consumers:
            # No name is given to it: a consumer that waits for its next job must not hold the reply of its last one.
            await self._attempt(await self._hand_off.get())
        self._consumers -= 1

    async def _attempt(self, assignment: Assignment) -> None:
        attempt = Attempt(assignment, self._pool, self._clock, self._hung_models, self._kept_for_load, self._replies)
        try:
            await self._work(attempt)
        except Exception as error:
            # The error costs this job only: the seat is free again, and the consumer goes on.
            _log.error("job %s could not be concluded", attempt.running.job.id, exc_info=error)
            await self._give_up(attempt, error)

    async def _work(self, attempt: Attempt) -> None:
        runner = attempt.running.job.runner
        self._attempts.add(attempt)
        self._idle.clear()
        is_seated = True
        try:
            end = await attempt.run(self._timeouts)
            if self._jobs.ledger.store_trouble is None:
                # What is left to do is the disk's, and the backend has room for the next job. While nothing can be
                # stored an outcome keeps its seat, so that no more outcomes gather.
                is_seated = False
                self._pool.free(attempt.backend, runner)
            await self._conclude(attempt, end)
        finally:
            self._attempts.discard(attempt)
            if is_seated:
                self._pool.free(attempt.backend, runner)
            if not self._attempts:
                self._idle.set()

    def _stop_after_load(self) -> None:
        """A load may have ended: end the attempts that were called off in the middle of it."""
        if self._kept_for_load:
            kept = tuple(self._kept_for_load)
            self._kept_for_load.clear()
            for attempt in kept:
                attempt.stop()

    # What the core is told

    async def _conclude(self, attempt: Attempt, end: AttemptEnd) -> None:
        running = attempt.running
        if not await _is_stored(running) or (end is None and running.is_cancelled):
            # The job is over; or it was never stored, which its caller was told.
            self._jobs.attempts.let_go(running)
        elif end is None:
            await self._jobs.attempts.put_back(running)
        elif isinstance(end, Outcome):
            await self._jobs.attempts.finish(running, end)
        elif isinstance(end, BackendError):
            await self._fail_or_retry(attempt, end)
        else:
            _log.error("job %s ended by an error of ours", running.job.id, exc_info=end)
            await self._fail(attempt, _internal(end))

    async def _fail_or_retry(self, attempt: Attempt, error: BackendError) -> None:
        decision = decide(self._failure(attempt, error), self._retry, holds_busy=self._holds_busy, chance=random.random)
        if isinstance(decision, Fail):
            await self._fail(attempt, decision)
            return
        attempt.withdraw()
        pause_ms, failures, crashes = decision
        _log.debug("job %s is tried again in %s ms, after %d failures", attempt.running.job.id, pause_ms or 0, failures)
        not_before = None if pause_ms is None else self._clock.now_ms() + pause_ms
        await self._jobs.attempts.put_back(attempt.running, Retry(not_before, error, failures, crashes))

    def _failure(self, attempt: Attempt, error: BackendError) -> Failure:
        job, relay = attempt.running.job, attempt.running.relay
        elsewhere = Elsewhere.NOWHERE
        if error.code == "model_not_found" and self._pool.may_be_elsewhere(attempt.backend, job.runner):
            elsewhere = Elsewhere.SERVED if self._pool.serving(job.runner) else Elsewhere.PERHAPS
        if relay is None:
            return Failure(error, job.failures, job.crashes, has_caller=False, is_sent=False, elsewhere=elsewhere)
        return Failure(error, job.failures, job.crashes, relay.readers > 0, relay.is_sent, elsewhere)

    async def _fail(self, attempt: Attempt, failed: Fail) -> None:
        # The caller need not wait for our disk.
        attempt.tell_failure(failed)
        segments = attempt.running.output.segments()
        outcome = Outcome(Status.FAILED, segments, error_code=failed.code, error_message=failed.message)
        await self._jobs.attempts.finish(attempt.running, outcome)

    async def _hand_back(self, running: Running) -> None:
        """Queue a job again that was handed over and never begun."""
        if await _is_stored(running):
            await self._jobs.attempts.put_back(running)
        else:
            self._jobs.attempts.let_go(running)

    async def _give_up(self, attempt: Attempt, error: Exception) -> None:
        running = attempt.running
        if self._jobs.ledger.output_of(running.job.id) is not running.output:
            return
        try:
            await self._fail(attempt, _internal(error))
        except Exception as again:
            _log.error("job %s stays as it is until a restart", running.job.id, exc_info=again)


def _internal(error: Exception) -> Fail:
    return Fail("internal_error", f"internal error: {type(error).__name__}")


async def _is_stored(running: Running) -> bool:
    """Whether the job is on disk, once that is known."""
    stored = running.stored
    if stored is None:
        return True
    if not stored.done():
        # It may be done well or not. This is awaited for every job, and is cheaper than ``asyncio.wait``.
        waiter: asyncio.Future[None] = stored.get_loop().create_future()
        stored.add_done_callback(lambda _: None if waiter.done() else waiter.set_result(None))
        await waiter
    return stored.exception() is None
