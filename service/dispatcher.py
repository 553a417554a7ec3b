"""Which job goes where next: decided when a seat is free, not when a job is submitted.

The database is the queue; what is handed over here has a seat already and belongs to this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from service.backend.pool import Backend, Pool
from service.clock import Clock
from service.errors import CannotStoreError, StoreError
from service.job import Line, model_of_runner
from service.jobs import Jobs
from service.queue.backlog import Pick
from service.scheduling.assignment import Assignment, Running

_log = logging.getLogger(__name__)


_STEPS = ((False, False), (True, False), (True, True))
"""What is loaded somewhere is served there before anybody loads anything (may_load), and what there is room for is
loaded before anything is pushed out (may_evict).
"""


class Dispatcher:
    """Gives free seats to waiting jobs."""

    def __init__(
        self, jobs: Jobs, pool: Pool, hand_off: asyncio.Queue[Assignment], clock: Clock, poll_seconds: float
    ) -> None:
        self._jobs = jobs
        self._pool = pool
        self._hand_off = hand_off
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._wakeup = asyncio.Event()
        self._look_due = asyncio.Event()
        self._doubtful: set[Line] = set()
        self._next_look: asyncio.TimerHandle | None = None
        self.waiting_since: dict[str, int] = {}
        """Since when the oldest job of each runner waits, as of the last time that seats were given out."""
        self._is_stopped = False
        jobs.when_ready(self.wake)
        jobs.when_delayed(self._look_due.set)
        jobs.when_corrected(self._doubtful.discard)
        jobs.when_entered(self._start_at_once)
        pool.when_changed(self._wake_if_wanted)

    def wake(self) -> None:
        """There may be something to do: a job, a seat, a backend."""
        self._wakeup.set()

    def _wake_if_wanted(self) -> None:
        if self._jobs.has_waiting:
            self._wakeup.set()

    def stop(self) -> None:
        """Hand over nothing more."""
        self._is_stopped = True

    def _start_at_once(self, line: Line) -> Callable[[Running], None] | None:
        """A seat for a new job, when there is one and nobody is ahead."""
        if self._is_stopped or self._jobs.has_waiting:
            return None
        runner = line.runner
        able = [backend for backend in self._pool.with_free_seat() if self._pool.may_take(backend, runner)]
        now = self._clock.now_ms()
        for may_load, may_evict in _STEPS:
            for backend in able:
                elsewhere = self._pool.loaded_elsewhere(backend, (runner,))
                chosen = backend.placement.choose(
                    {runner: now}, now, elsewhere=elsewhere, may_load=may_load, may_evict=may_evict
                )
                if chosen == runner:
                    self._pool.take(backend, runner)
                    return lambda running: self._hand_off.put_nowait(Assignment(running, backend))
        return None

    async def run(self) -> None:
        """Give out seats whenever something changes; never returns."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._give_out_seats())
            loops.create_task(self._look_regularly())

    async def _give_out_seats(self) -> None:
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            try:
                await self._give_out_round()
            except (CannotStoreError, StoreError) as error:
                # The poll comes back to it; the core has noted the trouble for /health.
                _log.debug("nothing could be claimed: %s", error)

    async def _give_out_round(self) -> None:
        while not self._is_stopped:
            chosen = await self._choose()
            if not chosen:
                return
            results = await asyncio.gather(
                *(self._claim(backend, picks) for backend, picks in chosen), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _choose(self) -> list[tuple[Backend, list[Pick]]]:
        """Reserve seats for picks, each list of one line, until there are no seats or nobody waits."""
        chosen: dict[tuple[str, Line], tuple[Backend, list[Pick]]] = {}
        if not self._pool.with_free_seat():
            return []
        waiting = await self._jobs.waiting_since(is_alone=self._pool.is_one)
        self.waiting_since = dict(waiting)
        for may_load, may_evict in _STEPS:
            for backend in self._pool.with_free_seat():
                while backend.free_seats > 0 and backend.is_available:
                    pick = self._next_for(backend, waiting, may_load=may_load, may_evict=may_evict)
                    if pick is None:
                        break
                    self._pool.take(backend, pick.line.runner)
                    chosen.setdefault((backend.name, pick.line), (backend, []))[1].append(pick)
        self._look_again(waiting)
        return list(chosen.values())

    def _look_again(self, waiting: dict[str, int]) -> None:
        """Come back when a runner falls overdue, or a residence has been long enough."""
        now = self._clock.now_ms()
        looks = [one.placement.next_look(waiting, now) for one in self._pool if one.is_available]
        due = min((look for look in looks if look is not None), default=None)
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if due is not None:
            self._next_look = asyncio.get_running_loop().call_later((due - now) / 1000, self.wake)

    def _next_for(self, backend: Backend, waiting: dict[str, int], *, may_load: bool, may_evict: bool) -> Pick | None:
        while True:
            mine = {runner: since for runner, since in waiting.items() if self._pool.may_take(backend, runner)}
            elsewhere = self._pool.loaded_elsewhere(backend, mine)
            runner = backend.placement.choose(
                mine, self._clock.now_ms(), elsewhere=elsewhere, may_load=may_load, may_evict=may_evict
            )
            if runner is None:
                return None
            pick = self._jobs.pick(runner, self._doubtful)
            if pick is None or not self._jobs.has_ready(runner):
                del waiting[runner]
            if pick is not None:
                return pick

    async def _claim(self, backend: Backend, picks: list[Pick]) -> None:
        line = picks[0].line
        begun: list[Running] = []
        try:
            begun = await self._jobs.claim(picks)
        finally:
            for running in begun:
                self._hand_off.put_nowait(Assignment(running, backend))
            if len(begun) < len(picks):
                self._doubtful.add(line)
                for _ in range(len(picks) - len(begun)):
                    backend.breakers.abandoned(model_of_runner(line.runner))
                    self._pool.free(backend, line.runner)

    async def _look_regularly(self) -> None:
        """The fallback: what is due, what expired, and what no event told of."""
        while True:
            pause = self._poll_seconds
            try:
                next_due = await self._jobs.tend()
                if next_due is not None:
                    pause = min(pause, max(0.001, (next_due - self._clock.now_ms()) / 1000))
                if self._doubtful or await self._jobs.has_missed():
                    self._doubtful.clear()
                    await self._jobs.recount()
            except (CannotStoreError, StoreError) as error:
                _log.warning("the queue could not be looked at: %s", error)
            self.wake()
            self._look_due.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._look_due.wait()
            except TimeoutError:
                continue
