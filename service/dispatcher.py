"""Hands jobs to the workers: claims those that the scheduler has chosen, and looks after what falls due.

The database is the queue; what is handed over here has a seat already and belongs to this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from service.backend.breakers import NO_TRIAL
from service.backend.pool import Backend, Pool
from service.clock import Clock
from service.errors import CannotStoreError, StoreError
from service.job import Line, model_of_runner
from service.jobs import Jobs
from service.queue.backlog import Pick
from service.scheduling.assignment import Assignment, Running
from service.scheduling.scheduler import Scheduler, Seat

_log = logging.getLogger(__name__)


class Dispatcher:
    """Gives free seats to waiting jobs. ``work`` is set by whoever may have left it something to do."""

    def __init__(
        self,
        jobs: Jobs,
        pool: Pool,
        scheduler: Scheduler,
        hand_off: asyncio.Queue[Assignment],
        work: asyncio.Event,
        clock: Clock,
        poll_seconds: float,
    ) -> None:
        self._jobs = jobs
        self._backlog = jobs.backlog
        self._pool = pool
        self._scheduler = scheduler
        self._hand_off = hand_off
        self._work = work
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._next_look: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """Hand over nothing more."""
        self._is_stopped = True

    async def run(self) -> None:
        """Give out seats whenever something changes; never returns."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._give_out_seats())
            loops.create_task(self._look_regularly())

    async def _give_out_seats(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                while not self._is_stopped and await self._give_out_round():
                    continue
            except (CannotStoreError, StoreError) as error:
                # The poll comes back to it; the core has noted the trouble for /health.
                _log.debug("nothing could be claimed: %s", error)

    async def _give_out_round(self) -> bool:
        """Whether anybody was given a seat: then there may be more to give."""
        if not self._backlog.has_waiting:
            return False
        if not self._pool.with_free_seat():
            return False
        seats = self._scheduler.choose()
        self._look_again()
        results = await asyncio.gather(
            *(self._claim(backend, picks) for backend, picks in _by_line(seats)),
            *(self._claim_trial(seat) for seat in seats if _is_trial(seat)),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return bool(seats)

    def _look_again(self) -> None:
        """Come back when time alone may change what the scheduler says."""
        due = self._scheduler.next_look()
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if due is not None:
            seconds = (due - self._clock.now_ms()) / 1000
            self._next_look = asyncio.get_running_loop().call_later(seconds, self._work.set)

    async def _claim(self, backend: Backend, picks: Sequence[Pick]) -> None:
        line = picks[0].line
        begun: list[Running] = []
        try:
            begun = await self._jobs.attempts.claim(picks)
        finally:
            for running in begun:
                self._hand_off.put_nowait(Assignment(running, backend))
            if len(begun) < len(picks):
                self._backlog.doubt(line)
                for _ in range(len(picks) - len(begun)):
                    self._pool.free(backend, line.runner)

    async def _claim_trial(self, seat: Seat) -> None:
        """Claim the job that finds out whether a fault has passed: one that failed by it only where no other waits."""
        backend, pick, trial = seat
        runner = pick.line.runner
        failed = backend.breakers.failed_before(model_of_runner(runner), pick.line.owner)
        begun: list[Running] = []
        try:
            begun = await self._jobs.attempts.claim([pick], failed)
            tried = [pick.line]
            while failed and not begun and (other := self._backlog.pick(runner, passed_over=tried)) is not None:
                tried.append(other.line)
                begun = await self._jobs.attempts.claim([other], failed)
            if failed and not begun and (again := self._backlog.pick(runner)) is not None:
                begun = await self._jobs.attempts.claim([again])
        finally:
            for running in begun:
                self._hand_off.put_nowait(Assignment(running, backend, trial))
            if not begun:
                self._backlog.doubt(pick.line)
                backend.breakers.abandoned(model_of_runner(runner), trial)
                self._pool.free(backend, runner)

    async def _look_regularly(self) -> None:
        """The fallback: what is due, what expired, and what no event told of."""
        upkeep, due_changed = self._jobs.upkeep, self._backlog.due_changed
        while True:
            pause = self._poll_seconds
            try:
                next_due = await upkeep.tend()
                if next_due is not None:
                    pause = min(pause, max(0.001, (next_due - self._clock.now_ms()) / 1000))
                if self._backlog.has_doubts or await upkeep.has_missed():
                    self._backlog.trust()
                    await upkeep.recount()
            except (CannotStoreError, StoreError) as error:
                _log.warning("the queue could not be looked at: %s", error)
            self._work.set()
            due_changed.clear()
            try:
                async with asyncio.timeout(pause):
                    await due_changed.wait()
            except TimeoutError:
                continue


def _by_line(seats: Sequence[Seat]) -> list[tuple[Backend, list[Pick]]]:
    """The turns of each line on each backend, trials aside: they are claimed in one statement."""
    grouped: dict[tuple[str, Line], tuple[Backend, list[Pick]]] = {}
    for seat in seats:
        if not _is_trial(seat):
            grouped.setdefault((seat.backend.name, seat.pick.line), (seat.backend, []))[1].append(seat.pick)
    return list(grouped.values())


def _is_trial(seat: Seat) -> bool:
    return seat.trial != NO_TRIAL
