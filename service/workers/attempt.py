"""One attempt of a job on a backend: the call, what is read of the reply, and how it ended."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from service.backend.backend import Backend
from service.backend.classification import failure_of, failure_of_ending
from service.backend.client import Deadlines, Reply
from service.backend.http.call import not_ollama
from service.backend.overlap import Sending
from service.backend.pool import Pool
from service.backend.protocols import Ending, Reader, reader_for
from service.cancel_scope import CancelScope
from service.clock import Clock
from service.config import TimeoutsConfig
from service.errors import OUTPUT_TOO_LARGE, BackendError, CallFailedError, Fault
from service.job import Outcome, Status, model_of_runner
from service.live.outputs import Output
from service.live.relay import Head
from service.scheduling.assignment import Running
from service.workers.retry_policy import Fail

_RELAYED_TIMES = 4
"""How many times longer than a text a relayed reply may be: it is JSON with a frame around each token, or vectors."""

AttemptEnd = Outcome | Exception | None
"""How an attempt ended: with an outcome or an error; None when it was called off."""


class TimeLimits(NamedTuple):
    """The deadlines of a call whose model must be loaded first, and of one whose model is loaded."""

    cold: Deadlines
    warm: Deadlines

    @classmethod
    def of(cls, timeouts: TimeoutsConfig) -> TimeLimits:
        return cls(
            _deadlines(timeouts, timeouts.first_byte_cold_seconds),
            _deadlines(timeouts, timeouts.first_byte_resident_seconds),
        )


class _Refusal(NamedTuple):
    """What a backend says in place of an answer: a reply of status 400 or more, or one that says it is cut."""

    head: Head
    body: bytes


class Attempt:
    """One call, and all that is read of its reply. The task that runs an attempt must also make it.

    The attempt alone fills the job's output and relay, and sets ``running.stop``. Everything else of ``running``, and
    the job's status, are the core's.
    """

    __slots__ = ("_clock", "_kept_for_load", "_pool", "_refusal", "_scope", "_sending", "backend", "running")

    def __init__(
        self, running: Running, backend: Backend, pool: Pool, clock: Clock, kept_for_load: set[Attempt]
    ) -> None:
        """``kept_for_load`` holds the attempts that were called off during a load; each adds and removes itself."""
        self.running = running
        self.backend = backend
        self._pool = pool
        self._clock = clock
        self._kept_for_load = kept_for_load
        self._refusal: _Refusal | None = None
        """The backend's own word of the failure, where it gave one."""
        self._sending: Sending | None = None
        """Its stream, once the first token has come."""
        self._scope = CancelScope()
        running.stop = self.stop

    async def run(self, limits: TimeLimits) -> AttemptEnd:
        """Call the backend, and tell the pool how the call ended."""
        end: AttemptEnd
        try:
            end = None if self.running.is_cancelled else await self._call(limits)
        except asyncio.CancelledError:
            if not self._scope.is_meant():
                raise
            end = None
        except Exception as error:
            end = error
        finally:
            self._scope.end()
            self.running.stop = None
            self._kept_for_load.discard(self)
        self._report(end)
        return end

    def stop(self) -> None:
        """End the call, unless the backend is loading the model: then the call goes on, and the seat is kept, until
        the model is known to be there.

        A load belongs to all who wait for the model, and Ollama would kill the runner and begin anew (wire contract
        2.6).
        """
        if self.backend.placement.is_loading(self.running.job.runner):
            self._kept_for_load.add(self)
        else:
            self._scope()

    def stop_at_once(self) -> None:
        """End the call, also in the middle of a load."""
        self._scope()

    def withdraw(self) -> None:
        """Another attempt will follow: nothing is left of what this one gave to its caller's relay."""
        if self.running.relay is not None:
            self.running.relay.reset()

    def tell_failure(self, failed: Fail) -> None:
        """This attempt was the last: its caller hears what the backend said, or else what has gone wrong."""
        relay, refusal = self.running.relay, self._refusal
        if relay is None:
            return
        if failed.is_worth_retrying:
            relay.is_worth_retrying = True
        if refusal is not None and not relay.is_sent:
            relay.refuse(refusal.head, refusal.body)
        else:
            relay.fail(CallFailedError(failed.message, code=failed.code))

    async def _call(self, limits: TimeLimits) -> Outcome | None:
        running, backend = self.running, self.backend
        job, output, relay = running.job, running.output, running.relay
        deadlines = limits.warm if backend.placement.is_loaded(job.runner) else limits.cold
        sent_at = self._clock.now_ms()
        async with backend.client.call(job.endpoint, running.request.encode(), deadlines) as reply:
            if reply.status >= 400:
                raise await self._refused(reply)
            self._pool.answered(backend, job.runner)
            if running.is_cancelled:
                return None
            if relay is not None:
                relay.begin(Head(reply.status, reply.headers))
            reader = reader_for(job.endpoint, streamed=bool(job.is_streamed))
            first_token_at = await self._read(reply, reader, sent_at)
            ending = reader.finish()
            output.append(ending.segments)
        failure = failure_of_ending(ending, job.endpoint)
        if failure is not None:
            raise self._broken_off(reply, ending, failure)
        if relay is not None:
            # The caller has its whole answer; it need not wait for our disk.
            relay.end()
        return Outcome(Status.COMPLETED, output.segments(), ending.counts, first_token_at=first_token_at)

    async def _refused(self, reply: Reply) -> BackendError:
        body = await reply.read()
        self._refusal = _Refusal(Head(reply.status, reply.headers), body)
        return failure_of(reply.status, body, reply.content_type, self.running.job.endpoint)

    async def _read(self, reply: Reply, reader: Reader, sent_at: int) -> int | None:
        """Read the body to its end; when its first bytes came. The request was sent at ``sent_at``."""
        output, relay = self.running.output, self.running.relay
        first_token_at: int | None = None
        async for data in reply.chunks():
            if relay is not None:
                relay.append(data)
            segments = reader.feed(data)
            if first_token_at is None:
                first_token_at = self._clock.now_ms()
                if self.running.job.is_streamed:
                    shares, runner = self._pool.shares, self.running.job.runner
                    self._sending = shares.began(self.backend, runner, sent_at, first_token_at)
            if segments:
                output.append(segments)
            if output.is_too_large or (relay is not None and relay.size > _RELAYED_TIMES * output.max_bytes):
                raise _too_long(output)
        return first_token_at

    def _broken_off(self, reply: Reply, ending: Ending, failure: BackendError) -> BackendError:
        """The error of a reply that began as an answer."""
        job, relay = self.running.job, self.running.relay
        if ending.error is None and job.is_streamed and reply.content_type == "application/json":
            # Ollama sends JSON only where the whole reply is one object.
            failure = not_ollama(self.backend.name, "JSON that is no answer")
        if relay is not None:
            relay.has_told_error = ending.error is not None
            if ending.is_told_cut:
                # Its caller may have it, once there are no more tries.
                self._refusal = _Refusal(Head(reply.status, reply.headers), relay.read(0)[0])
        return failure

    def _report(self, end: AttemptEnd) -> None:
        """Tell the pool what the end says of its backend."""
        job, backend = self.running.job, self.backend
        if self._sending is not None:
            self._pool.shares.ended(backend, self._sending, end.counts if isinstance(end, Outcome) else None)
        if isinstance(end, Outcome):
            now = self._clock.now_ms()
            tokens = end.counts.completion_tokens or 0
            self._pool.completed(backend, job.runner, now - (job.started_at or now), tokens)
        elif isinstance(end, BackendError):
            self._pool.report(backend, job.runner, end, job.id)
        else:
            backend.breakers.abandoned(model_of_runner(job.runner))


def _too_long(output: Output) -> BackendError:
    if output.is_too_large:
        what = f"the answer is longer than {output.max_bytes} bytes (output.max_bytes)"
    else:
        what = f"the reply is longer than {_RELAYED_TIMES * output.max_bytes} bytes (as JSON: 4 times output.max_bytes)"
    remedy = "ask for less at once, or have output.max_bytes raised"
    return BackendError(f"{what}; {remedy}", code=OUTPUT_TOO_LARGE, fault=Fault.PERMANENT)


def _deadlines(timeouts: TimeoutsConfig, first_byte_seconds: float) -> Deadlines:
    return Deadlines(
        connect=timeouts.connect_seconds,
        first_byte=first_byte_seconds,
        stall=timeouts.stall_seconds,
        attempt=timeouts.attempt_seconds,
    )
