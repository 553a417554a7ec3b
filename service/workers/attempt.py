"""One attempt of a job on a backend: the call, what is read of the reply, and how it ended."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import NamedTuple, Protocol

from service.backend.breakers import Evidence
from service.backend.calls import Call
from service.backend.classification import failure_of, failure_of_ending
from service.backend.client import Deadlines, Reply
from service.backend.http.call import Call as SentCall
from service.backend.http.call import not_ollama
from service.backend.http.deadlines import FIRST_BYTE_TIMEOUT, STALLED
from service.backend.overlap import Sending
from service.backend.pool import Pool
from service.backend.protocols import Ending, Reader, reader_for
from service.backend.silence import Voice
from service.cancel_scope import CancelScope
from service.clock import Clock
from service.config import TimeoutsConfig
from service.endpoints import ENDPOINTS
from service.errors import NOT_OLLAMA, REPEATED, BackendError, CallFailedError, Fault
from service.form_data import sent_form
from service.job import Outcome, Status, model_of_runner
from service.live.held_replies import HeldReplies
from service.live.relay import Head
from service.scheduling.assignment import Assignment
from service.workers.first_byte import FirstByte
from service.workers.reply_growth import ReplyGrowth
from service.workers.request_body import keep_alive_in
from service.workers.retry_policy import Fail

_log = logging.getLogger(__name__)

_MOST_REFUSED_BYTES = 1024 * 1024
"""Of a refusal, which may quote what the model has written."""

_ARRIVES_SECONDS = 2.0
"""So long after it was written whole, a request has certainly reached Ollama's scheduler."""

AttemptEnd = Outcome | Exception | None
"""How an attempt ended: with an outcome or an error; None when it was called off."""


class Judge(Protocol):
    """Who knows what it means that an attempt has met a limit."""

    async def judge(self, attempt: Attempt, error: BackendError) -> BackendError:
        """The error that it amounts to."""

    def note_silent(self, attempt: Attempt) -> None:
        """A whole reply has not come within the limit on a first byte; the call goes on."""


class _Refusal(NamedTuple):
    """What a backend says in place of an answer: a reply of status 400 or more, or a stream that holds a refusal."""

    head: Head
    body: bytes


class Attempt:
    """One call, and all that is read of its reply. The task that runs an attempt must also make it.

    The attempt alone fills the job's output and relay, and sets ``running.stop``. Everything else of ``running``, and
    the job's status, are the core's.
    """

    __slots__ = (
        "_clock",
        "_given_up",
        "_growth",
        "_held",
        "_judge",
        "_kept_for_load",
        "_pool",
        "_refusal",
        "_replies",
        "_scope",
        "_sending",
        "backend",
        "call",
        "running",
        "trial",
    )

    def __init__(
        self,
        assignment: Assignment,
        pool: Pool,
        clock: Clock,
        judge: Judge,
        kept_for_load: set[Attempt],
        replies: HeldReplies,
    ) -> None:
        """``kept_for_load`` holds the attempts that were called off during a load; each adds and removes itself.
        ``replies`` are all that are held in memory.
        """
        self.running = running = assignment.running
        self.backend = assignment.backend
        self.trial = assignment.trial
        self.call = Call(running.job.runner, clock.now_ms(), bool(running.job.is_streamed))
        self._pool = pool
        self._clock = clock
        self._judge = judge
        self._kept_for_load = kept_for_load
        self._given_up: BackendError | None = None
        self._refusal: _Refusal | None = None
        """The backend's own word of the failure, where it gave one."""
        self._held = bytearray()
        """The beginning of a reply that may still be a refusal."""
        self._replies = replies
        self._growth: ReplyGrowth | None = None
        self._sending: Sending | None = None
        """Its stream, once the first token has come."""
        self._scope = CancelScope()
        running.stop = self.stop

    @property
    def model(self) -> str:
        """The model under the name that its runner has on the backend."""
        return model_of_runner(self.backend.placement.own(self.running.job.runner))

    @property
    def sent_at(self) -> int:
        """When its call was sent."""
        return self.call.sent_at

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come of the reply."""
        return self.call.heard_at is None

    @property
    def has_token(self) -> bool:
        """Whether the model has written anything, be it never so little."""
        return self.running.output.length > 0

    async def run(self, timeouts: TimeoutsConfig) -> AttemptEnd:
        """Call the backend, and tell the pool how the call ended."""
        end: AttemptEnd
        job, backend = self.running.job, self.backend.name
        _log.debug("job %s: attempt %d begins at backend %s", job.id, job.attempt, backend)
        try:
            end = None if self.running.is_cancelled else await self._call(timeouts)
        except asyncio.CancelledError:
            if not self._scope.is_meant():
                raise
            end = None if self.running.is_cancelled else self._given_up
        except Exception as error:
            end = error
        finally:
            self._scope.end()
            self.running.stop = None
            self._kept_for_load.discard(self)
            self.backend.placement.holds.call_ends(self.call, self._clock.now_ms())
        self._report(end)
        # An error's words may be the backend's, and quote what the model wrote.
        word = end.status if isinstance(end, Outcome) else getattr(end, "code", type(end).__name__)
        _log.debug("job %s: attempt %d ends at backend %s: %s", job.id, job.attempt, backend, word)
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

    def give_up(self, error: BackendError) -> None:
        """End the call by this error: nothing will come of it."""
        self._given_up = error
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
        if failed.code == REPEATED:
            # What Ollama has ended on purpose ends for its caller as Ollama has ended it: as HTTP says, and no more.
            relay.end()
        elif refusal is not None and not relay.is_sent:
            relay.refuse(refusal.head, refusal.body)
        else:
            relay.fail(CallFailedError(failed.message, code=failed.code))

    async def _call(self, timeouts: TimeoutsConfig) -> Outcome | None:
        try:
            return await self._exchange(timeouts)
        except BackendError as error:
            if error.code == FIRST_BYTE_TIMEOUT and self._ends_trial():
                raise
            if error.code in (FIRST_BYTE_TIMEOUT, STALLED):
                raise await self._judge.judge(self, error) from error
            if (
                error.code == NOT_OLLAMA
                and error.fault is Fault.PERMANENT
                and not await self._pool.is_there(self.backend)
            ):
                # Not this request alone is refused: Ollama is not there.
                raise BackendError(str(error), code=NOT_OLLAMA, fault=Fault.ABSENT, status=error.status) from error
            raise

    async def _exchange(self, timeouts: TimeoutsConfig) -> Outcome | None:
        running, backend = self.running, self.backend
        job, output, relay = running.job, running.output, running.relay
        content_type = None
        if ENDPOINTS[job.endpoint].is_form:
            content_type, request = await sent_form(running.request)
        else:
            request = running.request.encode()
        limits = _limits(timeouts, is_streamed=bool(job.is_streamed))
        tell_silent = None if self.call.is_streamed else partial(self._judge.note_silent, self)
        patience = FirstByte(backend, self.call, len(request), timeouts, self._clock, tell_silent)
        placement = backend.placement
        keep_alive = keep_alive_in(request) if content_type is None else None
        carries_keep_alive = keep_alive is not None
        while carries_keep_alive and placement.has_load_beside(job.runner):
            # It would rewrite when its model is to go, and a load that waits for that would wait for ever (4.3).
            await self._pool.changed()
        sent = backend.client.call(job.endpoint, request, limits, patience=patience, content_type=content_type)
        if carries_keep_alive:
            self.call.is_settled = partial(self._is_settled, sent)
            # The model goes when such a call is over, or very soon.
            self.call.unloads = str(keep_alive).startswith("0")
        self.call.sent_at = self._clock.now_ms()
        placement.holds.call_begins(self.call, placement.own(job.runner))
        async with sent as reply:
            voice = backend.silence.voice(self.model)
            self.call.heard_at = voice.heard_at = self._clock.now_ms()
            if reply.status >= 400:
                raise await self._refused(reply)
            reader = reader_for(job.endpoint, streamed=bool(job.is_streamed), media_type=reply.content_type)
            first_token_at = await self._read(reply, reader, voice)
            if running.is_cancelled:
                return None
            ending = reader.finish()
            output.append(ending.segments)
            if self._growth is not None:
                self._growth.weigh(len(self._held))
        failure = failure_of_ending(ending, job.endpoint)
        if failure is not None:
            raise self._broken_off(reply, ending, failure)
        if first_token_at is None:
            # It is whole although nothing came: the words of a silence.
            self._begin(reply, b"", voice.heard_at)
        if relay is not None:
            # The caller has its whole answer; it need not wait for our disk.
            relay.end()
        backend.work.prompt_rates.learn(model_of_runner(job.runner), len(request), ending.counts)
        return Outcome(Status.COMPLETED, output.segments(), ending.counts, first_token_at=first_token_at)

    def _ends_trial(self) -> bool:
        """Whether its load was tried beside others, and this limit has ended that."""
        runner = self.running.job.runner
        if not self.backend.placement.holds.timed_out(runner, self._clock.now_ms()):
            return False
        _log.warning(
            "backend %s: %s did not come to be loaded beside what is there, which may be another client's; that is not "
            "tried again for an hour", self.backend.name, model_of_runner(runner),
        )  # fmt: skip
        return True

    def _is_settled(self, call: SentCall) -> bool:
        """Whether a load that is sent now is certain to reach Ollama behind this call."""
        if not self.is_silent:
            return True
        written_at = call.written_at
        return written_at is not None and asyncio.get_running_loop().time() - written_at >= _ARRIVES_SECONDS

    async def _refused(self, reply: Reply) -> BackendError:
        body = await reply.read(_MOST_REFUSED_BYTES)
        self._refusal = _Refusal(Head(reply.status, reply.headers), body)
        return failure_of(reply.status, body, reply.content_type, self.running.job.endpoint)

    async def _read(self, reply: Reply, reader: Reader, voice: Voice) -> int | None:
        """Read the body to its end, unless the job is cancelled when it begins; when its first bytes came.

        Its caller hears nothing of a reply that has not begun, since another attempt may still follow, unless it would
        have to be sent a sign of life meanwhile.
        """
        output, relay = self.running.output, self.running.relay
        now_ms = self._clock.now_ms
        growth = self._growth = ReplyGrowth(self.running, reader, self._replies)
        first_token_at: int | None = None
        async for data in reply.chunks():
            self.call.heard_at = voice.heard_at = now_ms()
            segments = reader.feed(data)
            if first_token_at is not None:
                if relay is not None:
                    relay.append(data)
            elif reader.has_begun:
                first_token_at = voice.heard_at
                self._begin(reply, data, first_token_at)
                if self.running.is_cancelled:
                    break
            else:
                self._hold(reply, data, is_opening=reader.has_opening)
            if segments:
                if not self.has_token:
                    self._pool.spoke(self.backend, self.running.job.runner, self.trial)
                output.append(segments)
            growing = growth.check(len(self._held))
            if growing is not None:
                await growing.turn()
        return first_token_at

    def _begin(self, reply: Reply, data: bytes, now: int) -> None:
        """The reply is an answer: pass on what there is of it."""
        job = self.running.job
        self._pool.answered(self.backend, job.runner)
        if job.is_streamed:
            self._sending = self._pool.shares.began(self.backend, job.runner, self.sent_at, now)
        relay = self.running.relay
        if relay is not None:
            if not self._is_opened:
                relay.begin(Head(reply.status, reply.headers))
            relay.append(bytes(self._held) + data if self._held else data)
        self._held.clear()

    def _hold(self, reply: Reply, data: bytes, *, is_opening: bool) -> None:
        """The reply may still be a refusal: keep back what there is of it, an opening only as long as its caller can
        wait.
        """
        relay = self.running.relay
        if relay is not None and self._is_opened:
            relay.append(data)
            return
        self._held += data
        if relay is not None and is_opening:
            relay.offer(Head(reply.status, reply.headers), self._held)

    @property
    def _is_opened(self) -> bool:
        """Whether the caller has the beginning of the reply; asked before the reply has begun, or after a refusal."""
        relay = self.running.relay
        return relay is not None and relay.head is not None

    def _broken_off(self, reply: Reply, ending: Ending, failure: BackendError) -> BackendError:
        """The error of a reply that began as an answer."""
        job, relay = self.running.job, self.running.relay
        if ending.error is None and job.is_streamed and reply.content_type == "application/json":
            # Ollama sends JSON only where the whole reply is one object.
            failure = not_ollama(self.backend.name, "JSON that is no answer")
        if ending.is_refusal and not self._is_opened:
            self._refusal = _Refusal(Head(reply.status, reply.headers), bytes(self._held))
        elif relay is not None:
            relay.has_told_error = ending.error is not None
        return failure

    def _report(self, end: AttemptEnd) -> None:
        """Tell the pool what the end says of its backend."""
        job, backend = self.running.job, self.backend
        shares, now = self._pool.shares, self._clock.now_ms()
        if self._sending is None and isinstance(end, Outcome) and end.counts.generation_ms is not None:
            # A whole reply tells at its end how long its tokens came.
            began_at = now - end.counts.generation_ms
            self._sending = shares.began(backend, job.runner, self.sent_at, began_at)
        if self._sending is not None:
            shares.ended(backend, self._sending, end.counts if isinstance(end, Outcome) else None)
        if isinstance(end, Outcome):
            tokens = end.counts.completion_tokens or 0
            self._pool.completed(backend, job.runner, now - (job.started_at or now), tokens)
        elif isinstance(end, BackendError):
            evidence = Evidence(job.id, job.owner, hash(self.running.request))
            self._pool.failed(backend, job.runner, end, evidence, self.trial, has_spoken=self.has_token)
        else:
            backend.breakers.abandoned(model_of_runner(job.runner), self.trial)


def _limits(timeouts: TimeoutsConfig, *, is_streamed: bool) -> Deadlines:
    """The limits of a call, but for that on its first byte; one that asks for a whole reply has only the ceiling."""
    return Deadlines(
        connect=timeouts.connect_seconds,
        first_byte=None,
        stall=timeouts.stall_seconds if is_streamed else None,
        attempt=timeouts.attempt_seconds,
    )
