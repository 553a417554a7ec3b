"""The consumers: each takes one handed-over job at a time, calls the backend, and tells the core how it ended."""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial

from service.backend.classification import failure_of, failure_of_ending
from service.backend.client import Deadlines
from service.backend.http.call import not_ollama
from service.backend.pool import Backend, Pool
from service.backend.protocols import reader_for
from service.cancel_scope import CancelScope
from service.clock import Clock
from service.config import RetryConfig, TimeoutsConfig
from service.errors import OUTPUT_TOO_LARGE, BackendError, CallFailedError, Fault
from service.job import Outcome, Status, model_of_runner
from service.jobs import Jobs, Retry
from service.live.outputs import Output
from service.live.relay import Head
from service.scheduling.assignment import Assignment, Refusal, Running

_log = logging.getLogger(__name__)

_ELSEWHERE_MS = 1_000
"""The pause before a job goes to another backend than the one that no longer has its model."""

_RELAYED_TIMES = 4
"""How much longer than a text may be a reply that is sent on: as JSON, with a frame around each token, or vectors."""

_STORE_SECONDS = 5.0
"""What a stop waits for outcomes beyond the jobs' own time: a supervisor that has to kill says less than we can."""


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
        *,
        holds_busy: bool = True,
    ) -> None:
        self._jobs = jobs
        self._pool = pool
        self._hand_off = hand_off
        self._clock = clock
        self._cold = _limits(timeouts, timeouts.first_byte_cold_seconds)
        self._warm = _limits(timeouts, timeouts.first_byte_resident_seconds)
        self._retry = retry
        self._holds_busy = holds_busy
        self._attempts: dict[str, CancelScope] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._kept_for_load: set[Running] = set()
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
        """Give running jobs ``seconds`` to end, then close their calls and queue them again; how many could not be
        settled, since nothing could be stored: they stay ``processing``, and the next start rescues them.
        """
        settling = asyncio.create_task(self._settle())
        await asyncio.wait((settling,), timeout=seconds)
        for scope in tuple(self._attempts.values()):
            scope()
        await asyncio.wait((settling,), timeout=_STORE_SECONDS)
        if settling.done():
            settling.result()
            return 0
        settling.cancel()
        return len(self._jobs.ledger.running)

    def reconfigure(self, timeouts: TimeoutsConfig, retry: RetryConfig, *, holds_busy: bool) -> None:
        """Deadlines and retries of the attempts that begin from now on; and the seats may be others."""
        self._cold = _limits(timeouts, timeouts.first_byte_cold_seconds)
        self._warm = _limits(timeouts, timeouts.first_byte_resident_seconds)
        self._retry = retry
        self._holds_busy = holds_busy
        self._seats_changed.set()

    async def _settle(self) -> None:
        while not self._hand_off.empty():
            running, backend = self._hand_off.get_nowait()
            if await _is_stored(running):
                await self._jobs.attempts.put_back(running)
            else:
                self._jobs.attempts.let_go(running)
            self._pool.free(backend, running.job.runner)
        await self._idle.wait()

    async def _consume(self) -> None:
        while self._consumers <= self._pool.wanted_consumers:
            running, backend = await self._hand_off.get()
            try:
                await self._work(running, backend)
            except Exception as error:
                # It costs this job only: the seat is free again, and the consumer goes on.
                _log.error("job %s could not be concluded", running.job.id, exc_info=error)
                await self._give_up(running, error)
        self._consumers -= 1

    async def _work(self, running: Running, backend: Backend) -> None:
        job_id, runner = running.job.id, running.job.runner
        scope = self._attempts[job_id] = CancelScope()
        self._idle.clear()
        running.stop = partial(self._stop, running, backend, scope)
        is_seated = True
        try:
            ending = await self._attempted(running, backend, scope)
            self._kept_for_load.discard(running)
            self._report(running, backend, ending)
            if self._jobs.ledger.store_trouble is None:
                # What is left to do is the disk's; the backend has room for the next. An outcome that cannot be stored
                # keeps its seat, so that no more of them gather.
                is_seated = False
                self._pool.free(backend, runner)
            await self._conclude(running, backend, ending)
        finally:
            self._attempts.pop(job_id, None)
            self._kept_for_load.discard(running)
            if is_seated:
                self._pool.free(backend, runner)
            if not self._attempts:
                self._idle.set()

    async def _attempted(self, running: Running, backend: Backend, scope: CancelScope) -> Outcome | Exception | None:
        """How the attempt ended: with an outcome or an error; None when it was called off."""
        try:
            return None if running.is_cancelled else await self._attempt(running, backend)
        except asyncio.CancelledError:
            if not scope.is_meant():
                raise
            return None
        except Exception as error:
            return error
        finally:
            scope.end()

    def _stop(self, running: Running, backend: Backend, scope: CancelScope) -> None:
        """A load belongs to everybody who waits for the model: whoever cancels meanwhile does not end it, and the seat
        is kept until the model is known to be there (Ollama would kill the runner and begin anew, wire contract 2.6).
        """
        if backend.placement.is_loading(running.job.runner):
            self._kept_for_load.add(running)
        else:
            scope()

    def _stop_after_load(self) -> None:
        if self._kept_for_load:
            kept, self._kept_for_load = self._kept_for_load, set()
            for running in kept:
                if running.stop is not None:
                    running.stop()

    async def _attempt(self, running: Running, backend: Backend) -> Outcome | None:
        job, output, relay = running.job, running.output, running.relay
        limits = self._warm if backend.placement.is_loaded(job.runner) else self._cold
        first_token_at: int | None = None
        async with backend.client.call(job.endpoint, running.request.encode(), limits) as reply:
            if reply.status >= 400:
                body = await reply.read()
                running.refusal = Refusal(Head(reply.status, reply.headers), body)
                raise failure_of(reply.status, body, reply.content_type, job.endpoint)
            self._pool.answered(backend, job.runner)
            if running.is_cancelled:
                return None
            if relay is not None:
                relay.begin(Head(reply.status, reply.headers))
            reader = reader_for(job.endpoint, streamed=bool(job.is_streamed))
            async for data in reply.chunks():
                if relay is not None:
                    relay.append(data)
                segments = reader.feed(data)
                if first_token_at is None:
                    first_token_at = self._clock.now_ms()
                if segments:
                    output.append(segments)
                if output.is_too_large or (relay is not None and relay.size > _RELAYED_TIMES * output.max_bytes):
                    raise _too_long(output)
            ending = reader.finish()
            output.append(ending.segments)
        failure = failure_of_ending(ending, job.endpoint)
        if failure is not None:
            if ending.error is None and job.is_streamed and reply.content_type == "application/json":
                # Ollama answers so only what is whole in one object.
                failure = not_ollama(backend.name, "JSON that is no answer")
            if relay is not None:
                relay.has_told_error = ending.error is not None
                if ending.is_told_cut:
                    # Its caller may have it, once there are no more tries.
                    running.refusal = Refusal(Head(reply.status, reply.headers), relay.read(0)[0])
            raise failure
        if relay is not None:
            # The caller has its whole answer; it need not wait for our disk.
            relay.end()
        return Outcome(Status.COMPLETED, output.segments(), ending.counts, first_token_at=first_token_at)

    def _report(self, running: Running, backend: Backend, ending: Outcome | Exception | None) -> None:
        """Tell the pool what the ending says of the backend."""
        if isinstance(ending, Outcome):
            now = self._clock.now_ms()
            self._pool.completed(
                backend, running.job.runner, now - (running.job.started_at or now), ending.counts.completion_tokens or 0
            )
        elif isinstance(ending, BackendError):
            self._pool.report(backend, running.job.runner, ending, running.job.id)
        else:
            backend.breakers.abandoned(model_of_runner(running.job.runner))

    async def _conclude(self, running: Running, backend: Backend, ending: Outcome | Exception | None) -> None:
        if not await _is_stored(running):
            # There is no such job, as its caller was told.
            self._jobs.attempts.let_go(running)
        elif isinstance(ending, Outcome):
            await self._jobs.attempts.finish(running, ending)
        elif ending is None:
            if running.is_cancelled:
                self._jobs.attempts.let_go(running)
            else:
                await self._jobs.attempts.put_back(running)
        elif isinstance(ending, BackendError):
            await self._fail_or_retry(running, backend, ending)
        else:
            _log.error("job %s ended by an error of ours", running.job.id, exc_info=ending)
            await self._fail(running, "internal_error", f"internal error: {type(ending).__name__}")

    async def _fail_or_retry(self, running: Running, backend: Backend, error: BackendError) -> None:
        job, retry, relay = running.job, self._retry, running.relay
        has_caller = relay is not None and relay.readers > 0
        crashes = int(error.fault is Fault.RUNNER)
        if (
            error.code == "model_not_found"
            and self._pool.may_be_elsewhere(backend, job.runner)
            and (not has_caller or self._pool.serving(job.runner))
        ):
            # Another backend has it, or is away and was never asked: held as for any backend that is away. A caller
            # waits only for one that is there; else it hears what this one said.
            await self._try_again(running, Retry(self._clock.now_ms() + _ELSEWHERE_MS, error))
        elif relay is not None and relay.is_sent:
            # Its caller has the beginning of this attempt's answer.
            await self._fail(running, error.code, str(error))
        elif relay is not None and has_caller and error.fault is Fault.BUSY and not self._holds_busy:
            relay.is_worth_retrying = True
            await self._fail(running, error.code, str(error))
        elif error.fault is Fault.ABSENT:
            await self._try_again(running, Retry(None, error))
        elif error.fault is Fault.BUSY:
            await self._try_again(running, Retry(self._pause(0), error))
        elif crashes and job.crashes + 1 >= retry.poison_failures:
            times = job.crashes + 1
            await self._fail(running, "poison", f"the model's runner failed {times} times under this prompt: {error}")
        elif error.fault is Fault.PERMANENT or job.failures >= retry.max_retries:
            await self._fail(running, error.code, str(error))
        else:
            await self._try_again(running, Retry(self._pause(job.failures), error, 1, crashes))

    async def _try_again(self, running: Running, retry: Retry) -> None:
        if running.relay is not None:
            running.relay.reset()
        await self._jobs.attempts.put_back(running, retry)

    async def _fail(self, running: Running, code: str, message: str) -> None:
        relay, refusal = running.relay, running.refusal
        if relay is not None:
            # Its caller need not wait for our disk.
            if refusal is not None and not relay.is_sent:
                relay.refuse(refusal.head, refusal.body)
            else:
                relay.fail(CallFailedError(message, code=code))
        outcome = Outcome(Status.FAILED, running.output.segments(), error_code=code, error_message=message)
        await self._jobs.attempts.finish(running, outcome)

    async def _give_up(self, running: Running, error: Exception) -> None:
        if self._jobs.ledger.output_of(running.job.id) is not running.output:
            return
        try:
            await self._fail(running, "internal_error", f"internal error: {type(error).__name__}")
        except Exception as again:
            _log.error("job %s stays as it is until a restart", running.job.id, exc_info=again)

    def _pause(self, failures: int) -> int:
        """When the next attempt may begin: exponential, capped, with full jitter (milliseconds since the epoch)."""
        longest = min(self._retry.cap_seconds, self._retry.initial_seconds * self._retry.factor**failures)
        return self._clock.now_ms() + int(random.uniform(0, longest) * 1000)


def _too_long(output: Output) -> BackendError:
    if output.is_too_large:
        what = f"the answer is longer than {output.max_bytes} bytes (output.max_bytes)"
    else:
        what = f"the reply is longer than {_RELAYED_TIMES * output.max_bytes} bytes (as JSON: 4 times output.max_bytes)"
    remedy = "ask for less at once, or have output.max_bytes raised"
    return BackendError(f"{what}; {remedy}", code=OUTPUT_TOO_LARGE, fault=Fault.PERMANENT)


async def _is_stored(running: Running) -> bool:
    """Whether the job is on disk, once that is known."""
    stored = running.stored
    if stored is None:
        return True
    if not stored.done():
        # Done well or not; unlike ``asyncio.wait`` this is done for every job, so it is spare.
        waiter: asyncio.Future[None] = stored.get_loop().create_future()
        stored.add_done_callback(lambda _: None if waiter.done() else waiter.set_result(None))
        await waiter
    return stored.exception() is None


def _limits(timeouts: TimeoutsConfig, first_byte_seconds: float) -> Deadlines:
    return Deadlines(
        connect=timeouts.connect_seconds,
        first_byte=first_byte_seconds,
        stall=timeouts.stall_seconds,
        attempt=timeouts.attempt_seconds,
    )
