"""Following one job: its status and its output from a position on, each follower at its own pace.

A position is ``attempt.offset``. A follower that comes back with a position in an earlier attempt is told to begin
again (``Restarted``), and gets the newest attempt from its beginning: two answers are never spliced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from service.errors import CONTENTS_DELETED, ContentsDeletedError
from service.job import Job, Status
from service.live.hub import Hub, JobChanged, job_channel
from service.live.outputs import Output, Piece, Position, of_segments
from service.live.stored_output import StoredOutput
from service.store.job_queries import JobQueries


class StatusChanged(NamedTuple):
    """The job stands now as in ``job``."""

    job: Job


class Restarted(NamedTuple):
    """What was shown is of an attempt that is void; the output of ``attempt`` follows from its beginning."""

    attempt: int


class OutputArrived(NamedTuple):
    """A stretch of output; ``piece.end`` is the offset to come back with."""

    attempt: int
    piece: Piece

    @property
    def position(self) -> Position:
        return Position(self.attempt, self.piece.end)


class Done(NamedTuple):
    """The job is final and all of its output was given; nothing follows."""

    job: Job


Event = StatusChanged | Restarted | OutputArrived | Done


class LiveOutputs(Protocol):
    """Where the outputs of running jobs are found."""

    def output_of(self, job_id: str) -> Output | None: ...


class Follower:
    """One reader of one job. ``wake`` is called whenever :meth:`read` may have something; it must return at once."""

    def __init__(
        self,
        queries: JobQueries,
        hub: Hub,
        outputs: LiveOutputs,
        job: Job,
        position: Position | None,
        wake: Callable[[], None],
    ) -> None:
        self._queries = queries
        self._hub = hub
        self._outputs = outputs
        self._job = job
        self._has_new_status = True
        self._position = position
        self._output: Output | None = None
        self._stored: StoredOutput | None = None
        """The output of a finished job, where it is long."""
        self._wake = wake
        self.is_done = False
        hub.subscribe(job_channel(job.id), self)

    @property
    def job(self) -> Job:
        """The job as last heard of."""
        return self._job

    def receive(self, event: JobChanged) -> None:
        """Hear of a status change. One that is older than what is known is passed over: a snapshot has overtaken it."""
        if event.job.stage >= self._job.stage:
            self._job = event.job
            self._has_new_status = True
            self._wake()

    async def refresh(self) -> None:
        """Look at the stored row again, in case an event of another process was missed."""
        standing = await self._queries.standing(self._job.id)
        if standing is not None and standing.job.stage > self._job.stage:
            self.receive(JobChanged(standing.job))

    async def read(self) -> list[Event]:
        """What is new since the last read, a bounded stretch of it; empty when nothing is."""
        if self.is_done:
            return []
        events: list[Event] = []
        if self._has_new_status:
            self._has_new_status = False
            events.append(StatusChanged(self._job))
        # The status is read before the output: a job that becomes final in between is told of by the next read.
        job = self._job
        output = await self._current_output(job)
        if self._stored is not None:
            events += await self._read_stored(self._stored)
            if not self._stored.is_read:
                self._wake()
                return events
        elif output is not None:
            events += self._read_output(output)
        if job.is_final and (output is None or self._has_read_all(output)):
            events.append(Done(job))
            self.close()
            self.is_done = True
        return events

    def close(self) -> None:
        """Stop listening."""
        self._hub.unsubscribe(job_channel(self._job.id), self)
        self._detach()

    async def _current_output(self, job: Job) -> Output | None:
        live = self._outputs.output_of(job.id)
        if live is not None and live is not self._output:
            self._detach()
            self._output = live
            live.wakers[self._wake] = None
        if self._output is not None and self._output.attempt != job.attempt and live is None:
            self._detach()
        if self._output is None and job.is_final:
            await self._find_stored(job)
        return self._output

    async def _find_stored(self, job: Job) -> None:
        result = None if self._stored is not None else await self._queries.result(job.seq)
        if result is not None and result.is_short:
            self._output = of_segments(result.attempt, (await result.whole()).segments)
        elif result is not None:
            self._stored = StoredOutput(result)
        elif job.status == Status.COMPLETED and self._stored is None:
            # Nobody must take the end of what is deleted for the end of an answer.
            raise ContentsDeletedError(CONTENTS_DELETED)

    async def _read_stored(self, output: StoredOutput) -> list[Event]:
        events: list[Event] = []
        position = self._position
        if position is None:
            position = Position(output.attempt, 0)
        elif position.attempt != output.attempt or not await output.skip(position.offset):
            position = Position(output.attempt, 0)
            await output.begin_anew()
            events.append(Restarted(output.attempt))
        pieces = await output.read()
        events += [OutputArrived(output.attempt, piece) for piece in pieces]
        self._position = Position(output.attempt, pieces[-1].end) if pieces else position
        return events

    def _read_output(self, output: Output) -> list[Event]:
        events: list[Event] = []
        position = self._position
        if position is None:
            position = Position(output.attempt, 0)
        elif position.attempt != output.attempt or position.offset > output.length:
            position = Position(output.attempt, 0)
            events.append(Restarted(output.attempt))
        pieces = output.read(position.offset)
        events += [OutputArrived(output.attempt, piece) for piece in pieces]
        self._position = Position(output.attempt, pieces[-1].end) if pieces else position
        if pieces and pieces[-1].end < output.length:
            self._wake()
        return events

    def _has_read_all(self, output: Output) -> bool:
        return self._position is not None and self._position.offset >= output.length

    def _detach(self) -> None:
        if self._output is not None:
            self._output.wakers.pop(self._wake, None)
            self._output = None
