"""The consumers: each takes one handed-over job at a time, calls the backend, and tells the core how it ended."""

from __future__ import annotations

import asyncio
import logging
import random

from service.backend.classification import failure_of, failure_of_ending
from service.backend.client import Limits
from service.backend.pool import Backend, Pool
from service.backend.protocols import reader_for
from service.clock import Clock
from service.config import RetryConfig, TimeoutsConfig
from service.dispatcher import Assignment
from service.errors import BackendError, Fault
from service.job import Counts, Outcome, Status
from service.jobs import Jobs, Retry, Running

_log = logging.getLogger(__name__)


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
    ) -> None:
        self._jobs = jobs
        self._pool = pool
        self._hand_off = hand_off
        self._clock = clock
        self._timeouts = timeouts
        self._retry = retry
        self._attempts: dict[int, asyncio.Task[Outcome]] = {}
        self._is_stopping = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Work on what is handed over; never returns."""
        async with asyncio.TaskGroup() as consumers:
            for _ in range(self._pool.seats):
                consumers.create_task(self._consume())

    async def drain(self, seconds: float) -> None:
        """Give running jobs ``seconds`` to end, then close their calls and queue them again; returns when all are
        settled.
        """
        while not self._hand_off.empty():
            running, backend = self._hand_off.get_nowait()
            await self._jobs.put_back(running)
            self._pool.free(backend, running.job.runner)
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            self._is_stopping = True
            for attempt in tuple(self._attempts.values()):
                attempt.cancel()
            await self._idle.wait()

    async def _consume(self) -> None:
        while True:
            running, backend = await self._hand_off.get()
            await self._work(running, backend)

    async def _work(self, running: Running, backend: Backend) -> None:
        seq = running.job.seq
        attempt = asyncio.create_task(self._attempt(running, backend))
        self._attempts[seq] = attempt
        self._idle.clear()
        running.stop = attempt.cancel
        if running.is_cancelled:
            attempt.cancel()
        try:
            await asyncio.wait((attempt,))
            await self._conclude(running, backend, attempt)
        finally:
            self._attempts.pop(seq, None)
            self._pool.free(backend, running.job.runner)
            if not self._attempts:
                self._idle.set()

    async def _attempt(self, running: Running, backend: Backend) -> Outcome:
        job, output = running.job, running.output
        limits = Limits(
            connect=self._timeouts.connect_seconds,
            first_byte=self._timeouts.first_byte_cold_seconds,
            stall=self._timeouts.stall_seconds,
            attempt=self._timeouts.attempt_seconds,
        )
        first_token_at: int | None = None
        async with backend.client.call(job.endpoint, running.request.encode(), limits) as reply:
            if reply.status >= 400:
                raise failure_of(reply.status, await reply.read(), reply.content_type, job.endpoint)
            reader = reader_for(job.endpoint, streamed=True)
            async for data in reply.chunks():
                segments = reader.feed(data)
                if not segments:
                    continue
                if first_token_at is None:
                    first_token_at = self._clock.now_ms()
                output.append(segments)
                if output.is_too_large:
                    raise BackendError(
                        f"the answer is longer than {output.max_bytes} bytes (output.max_bytes)",
                        code="output_too_large",
                        fault=Fault.PERMANENT,
                    )
            ending = reader.finish()
        failure = failure_of_ending(ending, job.endpoint)
        if failure is not None:
            raise failure
        return Outcome(Status.COMPLETED, output.segments(), ending.counts, first_token_at=first_token_at)

    async def _conclude(self, running: Running, backend: Backend, attempt: asyncio.Task[Outcome]) -> None:
        if attempt.cancelled():
            if running.is_cancelled:
                self._jobs.let_go(running)
            else:
                await self._jobs.put_back(running)
            return
        error = attempt.exception()
        if error is None:
            await self._jobs.finish(running, attempt.result())
        elif isinstance(error, BackendError):
            await self._fail_or_retry(running, backend, error)
        else:
            _log.error("job %s ended by an error of ours", running.job.id, exc_info=error)
            internal = BackendError(
                f"internal error: {type(error).__name__}", code="internal_error", fault=Fault.PERMANENT
            )
            await self._jobs.finish(running, _failed(running, internal))

    async def _fail_or_retry(self, running: Running, backend: Backend, error: BackendError) -> None:
        job = running.job
        match error.fault:
            case Fault.ABSENT:
                self._pool.report_absent(backend, error)
                await self._jobs.put_back(running, Retry(None, 0, error))
            case Fault.BUSY:
                await self._jobs.put_back(running, Retry(self._pause(0), 0, error))
            case Fault.PERMANENT:
                await self._jobs.finish(running, _failed(running, error))
            case Fault.RUNNER if job.failures + 1 >= self._retry.poison_failures:
                await self._jobs.finish(running, _failed(running, error))
            case _ if job.failures >= self._retry.max_retries:
                await self._jobs.finish(running, _failed(running, error))
            case _:
                await self._jobs.put_back(running, Retry(self._pause(job.failures), 1, error))

    def _pause(self, failures: int) -> int:
        """When the next attempt may begin: exponential, capped, with full jitter (milliseconds since the epoch)."""
        longest = min(self._retry.cap_seconds, self._retry.initial_seconds * self._retry.factor**failures)
        return self._clock.now_ms() + int(random.uniform(0, longest) * 1000)


def _failed(running: Running, error: BackendError) -> Outcome:
    return Outcome(Status.FAILED, running.output.segments(), Counts(), error_code=error.code, error_message=str(error))
