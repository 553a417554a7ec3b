"""A run: every line asked, and what became of it written in the order of the input."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Container, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from corral.batch.journal import Journal
from corral.batch.lines import Line, Outcome
from corral.batch.pace import Pace
from corral.batch.senders import Calls, Jobs, asked, ends_run, failed
from corral.batch.tally import Tally
from corral.errors import CorralError

_KEPT_SECONDS = 1.0
"""So long at most nothing new is on the disk."""
_SUBMITTERS = 4
"""Lines on their way at a time. Jobs keep the order of their lines but for a few places, and no line waits for the
commit of another.
"""
_COLLECTORS = 16
"""Jobs that are waited for at a time. They end in about their order, and each connection costs the others time."""
_POLL_SECONDS = 20.0
_SHORT_POLL_SECONDS = 2.0
"""Where more jobs are out than are waited for: one that takes long must not hide those that have ended behind it."""


class TooManyFailedError(CorralError):
    """``--max-failures`` is reached."""


class OutOfTimeError(CorralError):
    """``--max-wait`` is over."""


class Writing(Protocol):
    """Where outcomes go."""

    def write(self, journal: Journal, fresh: dict[int, Outcome]) -> None:
        """Write all that has its turn now; ``fresh`` are outcomes that the journal has got just now. It blocks."""


@dataclass
class Limits:
    """How much at a time, and how much at all."""

    in_flight: int = 256
    concurrency: int = 8
    max_failures: int | None = None
    max_wait_seconds: float | None = None
    is_detached: bool = False


@dataclass
class Work:
    """What is to be done, and what was done before."""

    lines: Callable[[], Iterator[Line]]
    """Those that may be asked, in their order."""
    settled: Container[int]
    """Lines of which the outcome, or at least the job, is known."""
    jobs: list[tuple[int, str]] = field(default_factory=list)
    """Lines whose jobs were submitted, and are to be collected."""


class Run:
    """One run. What it learns is in the journal within a second, and in the output as soon as its turn has come."""

    def __init__(
        self, work: Work, sender: Jobs | Calls, journal: Journal, writing: Writing, tally: Tally, limits: Limits
    ) -> None:
        self._work = work
        self._sender = sender
        self._journal = journal
        self._writing = writing
        self.tally = tally
        self._limits = limits
        self._submitting, self._collecting = Pace(), Pace()
        self._pending: deque[tuple[int, str]] = deque(work.jobs)
        self._out = len(self._pending)
        """Jobs that were submitted and whose end is not known."""
        self._submitting_now = 0
        self._changed = asyncio.Event()
        self._new_jobs: list[tuple[int, str]] = []
        self._new_outcomes: dict[int, Outcome] = {}
        self._counted_at = 0.0
        self._failed = 0

    @property
    def waits_for(self) -> str | None:
        """What keeps it from going on, in words."""
        return self._submitting.waits_for or self._collecting.waits_for

    async def run(self) -> None:
        """Ask all lines. Raises TooManyFailedError and OutOfTimeError, and what ends the run: it can go on later."""
        self._counted_at = asyncio.get_running_loop().time()
        kept = asyncio.create_task(self._keep())
        work = asyncio.create_task(self._ask_all())
        try:
            async with asyncio.timeout(self._limits.max_wait_seconds) as time:
                await asyncio.wait((kept, work), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            if not time.expired():
                raise
            raise OutOfTimeError(
                f"--max-wait: {self._limits.max_wait_seconds:g} s are over, and "
                f"{self.tally.total - self.tally.done} lines are left"
            ) from None
        finally:
            for task in (kept, work):
                task.cancel()
            await asyncio.wait((kept, work))
            has_failed = not kept.cancelled() and kept.exception() is not None
            if not has_failed:
                await self._save()
        for task in (kept, work):
            if not task.cancelled():
                task.result()

    async def _ask_all(self) -> None:
        if isinstance(self._sender, Jobs):
            collectors = () if self._limits.is_detached else (self._collect(self._sender) for _ in range(_COLLECTORS))
            lines = self._lines()
            await _together(*(self._submit(self._sender, lines) for _ in range(_SUBMITTERS)), *collectors)
        else:
            lines = self._lines()
            await _together(*(self._call(self._sender, lines) for _ in range(self._limits.concurrency)))

    def _lines(self) -> Iterator[Line]:
        return (line for line in self._work.lines() if line.index not in self._work.settled)

    async def _submit(self, sender: Jobs, lines: Iterator[Line]) -> None:
        self._submitting_now += 1
        for line in lines:
            while self._out >= self._limits.in_flight and not self._limits.is_detached:
                await self._change()

            async def submit(line: Line = line) -> str:
                return await sender.submit(line)

            try:
                job_id = await self._submitting.through(submit)
            except CorralError as error:
                if ends_run(error):
                    raise
                self._ended(line.index, failed(error, line))
                continue
            self._new_jobs.append((line.index, job_id))
            self._pending.append((line.index, job_id))
            self._out += 1
            self._tell()
        self._submitting_now -= 1
        self._tell()

    async def _collect(self, sender: Jobs) -> None:
        while True:
            if not self._pending:
                if not self._submitting_now and not self._out:
                    return
                await self._change()
                continue
            place, job_id = self._pending.popleft()
            seconds = _SHORT_POLL_SECONDS if self._pending else _POLL_SECONDS

            async def collect(job_id: str = job_id, seconds: float = seconds) -> Outcome | None:
                return await sender.collect(job_id, seconds)

            try:
                outcome = await self._collecting.through(collect)
            except CorralError as error:
                if ends_run(error):
                    raise
                outcome = Outcome("failed", code="not_collected", message=str(error), job_id=job_id)
            if outcome is None:
                self._pending.append((place, job_id))
                continue
            self._out -= 1
            self._ended(place, outcome)

    async def _call(self, sender: Calls, lines: Iterator[Line]) -> None:
        for line in lines:

            async def call(line: Line = line) -> Outcome:
                return await asked(sender, line)

            try:
                outcome = await self._submitting.through(call)
            except CorralError as error:
                if ends_run(error):
                    raise
                outcome = failed(error, line)
            self._ended(line.index, outcome)

    def _ended(self, place: int, outcome: Outcome) -> None:
        self.tally.add(outcome)
        self._new_outcomes[place] = outcome
        # One job less is in the queue.
        self._submitting.wake()
        self._tell()
        # Those of earlier parts of the run do not count: it could never go on.
        self._failed += not outcome.is_good
        most = self._limits.max_failures
        if most is not None and self._failed >= most:
            raise TooManyFailedError(f"--max-failures: {self._failed} lines have failed")

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        await self._changed.wait()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_KEPT_SECONDS)
            await self._save()

    async def _save(self) -> None:
        """Have the journal and the output know what is known."""
        jobs, outcomes = self._new_jobs, self._new_outcomes
        self._new_jobs, self._new_outcomes = [], {}
        now = asyncio.get_running_loop().time()
        self.tally.seconds, self._counted_at = self.tally.seconds + now - self._counted_at, now
        facts = self.tally.facts()

        def save() -> None:
            if jobs or outcomes:
                self._journal.write(jobs, outcomes.items(), facts)
                self._writing.write(self._journal, outcomes)

        saving = asyncio.create_task(asyncio.to_thread(save))
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:
            # A thread cannot be cancelled, and the journal is for one at a time.
            with suppress(CorralError):
                await saving
            raise


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """All of them; what one raises ends the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
