"""Runners and who gets them: a single load loop, seats, eviction, and the starvation of wire contract 4.3.

The shape is that of Ollama's own scheduler, deadlock included: that is what Corral's dispatcher must never meet.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.simulated.errors import ReplyError
from service.simulated.faults import SERVER_BUSY, ArmedFault, Disruption, FaultKind, Faults
from service.simulated.models import SimulatedModel
from service.simulated.observations import Observations
from service.simulated.options import RunnerOptions
from service.simulated.settings import SimulatedSettings


@dataclass(slots=True)
class Seat:
    """One request's place in a runner. A lost one is never given back."""

    is_lost: bool = False


class Runner:
    """A loaded model. `model` is the name that loaded it; other names of the same weights share it.

    `hang`: the fault under which it answers nobody any more.
    """

    def __init__(self, model: SimulatedModel, options: RunnerOptions, seats: int, keep_alive_seconds: float) -> None:
        self.model = model
        self.options = options
        self._seats = asyncio.Semaphore(seats)
        self.hang: ArmedFault | None = None
        self.keep_alive_seconds = keep_alive_seconds
        self.references = 0
        self.is_dead = False
        self.expires_at = 0.0  # epoch seconds
        self.timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def seat(self) -> AsyncIterator[Seat]:
        """Wait for a seat, in the order of arrival and without a bound."""
        await self._seats.acquire()
        seat = Seat()
        try:
            yield seat
        finally:
            if not seat.is_lost:
                self._seats.release()

    def touch(self) -> None:
        self.expires_at = time.time() + self.keep_alive_seconds

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def can_serve(self, options: RunnerOptions) -> bool:
        return not self.is_dead and (self.model.is_mlx or self.options.fits(options))


class _PendingRequest:
    __slots__ = ("granted", "keep_alive_seconds", "model", "options")

    def __init__(self, model: SimulatedModel, options: RunnerOptions, keep_alive_seconds: float | None) -> None:
        self.model = model
        self.options = options
        self.keep_alive_seconds = keep_alive_seconds
        self.granted: asyncio.Future[Runner] = asyncio.get_running_loop().create_future()


class Scheduler:
    """Give each request its runner, loading and evicting as Ollama does."""

    def __init__(self, settings: SimulatedSettings, faults: Faults, observations: Observations) -> None:
        self._settings = settings
        self._faults = faults
        self._observations = observations
        self._loaded: dict[str, Runner] = {}  # by weights
        self._pending: deque[_PendingRequest] = deque()
        self._has_pending = asyncio.Event()
        self._unloaded = asyncio.Event()

    @property
    def loaded(self) -> Sequence[Runner]:
        """What `/api/ps` shows: a model that is still loading is not in it."""
        return tuple(self._loaded.values())

    @asynccontextmanager
    async def acquired(
        self, model: SimulatedModel, options: RunnerOptions, keep_alive_seconds: float | None
    ) -> AsyncIterator[Runner]:
        """A runner for one request. Raises ReplyError: the queue is full, the load failed."""
        runner = await self._acquire(model, options, keep_alive_seconds)
        try:
            yield runner
        finally:
            self._release(runner)

    @asynccontextmanager
    async def seated(self, runner: Runner, asked: SimulatedModel) -> AsyncIterator[Seat]:
        """A seat for one request, which is seen to have it under the name that it asked for."""
        async with runner.seat() as seat:
            self._observations.seated(asked.name)
            try:
                yield seat
            finally:
                self._observations.unseated(asked.name)

    async def _acquire(self, model: SimulatedModel, options: RunnerOptions, keep_alive_seconds: float | None) -> Runner:
        runner = self._loaded.get(model.weights)
        if runner is not None and runner.can_serve(options):
            # The fast path of contract 4.2: past the buffer, and past a runner's being drained for another model.
            return self._use(runner, keep_alive_seconds)
        if len(self._pending) >= self._settings.max_queue:
            raise ReplyError(503, SERVER_BUSY)
        request = _PendingRequest(model, options, keep_alive_seconds)
        self._pending.append(request)
        self._count_pending()
        self._has_pending.set()
        try:
            return await request.granted
        except asyncio.CancelledError:
            # The request was granted and cancelled in the same moment: nobody else knows of its reference.
            if request.granted.done() and not request.granted.cancelled() and request.granted.exception() is None:
                self._release(request.granted.result())
            raise

    def _release(self, runner: Runner) -> None:
        runner.references -= 1
        if runner.references > 0:
            return
        if runner.keep_alive_seconds <= 0:
            self._unload(runner)
            return
        runner.touch()
        runner.stop_timer()
        if runner.keep_alive_seconds != float("inf"):
            loop = asyncio.get_running_loop()
            runner.timer = loop.call_later(runner.keep_alive_seconds, self._expired, runner)

    def expire(self, model: SimulatedModel) -> None:
        """An unload request: the runner goes as soon as it is idle. It is never a reason to load."""
        runner = self._loaded.get(model.weights)
        if runner is not None:
            runner.expires_at = time.time()
            self._drain(runner)
            if self._faults.take_unload(model.name).fault(FaultKind.UNLOAD_AT_ONCE) is not None:
                self._unload(runner)

    def forget_all(self) -> None:
        """The whole server dies: nothing is left of the runners."""
        for runner in self.loaded:
            runner.stop_timer()
            runner.is_dead = True
        self._loaded.clear()

    async def run(self) -> None:
        """The single loop: one load or eviction at a time, in the order of arrival (head-of-line blocking)."""
        while True:
            while not self._pending:
                self._has_pending.clear()
                await self._has_pending.wait()
            request = self._pending.popleft()
            self._count_pending()
            if not request.granted.done():
                await self._place(request)

    async def _place(self, request: _PendingRequest) -> None:
        while True:
            runner = self._loaded.get(request.model.weights)
            if runner is None and self._has_room(request.model):
                await self._load(request)
                return
            if runner is not None and runner.can_serve(request.options):
                if not request.granted.done():
                    request.granted.set_result(self._use(runner, request.keep_alive_seconds))
                return
            self._unloaded.clear()
            self._drain(runner or self._victim())
            # No timeout, as in Ollama: the loop waits for ever when the victim is kept busy or given a new keep_alive.
            await self._unloaded.wait()

    async def _load(self, request: _PendingRequest) -> None:
        model = request.model
        if request.granted.done():
            return
        disruption = self._faults.take_load(model.name)
        self._observations.loading = model.name
        self._observations.changed()
        loading = asyncio.ensure_future(self._pass_time(model, disruption))
        try:
            # The requester alone keeps the load alive: when it leaves, the next one begins from nothing (2.6).
            await asyncio.wait((loading, request.granted), return_when=asyncio.FIRST_COMPLETED)
        finally:
            loading.cancel()
            self._observations.loading = None
            self._observations.changed()
        if request.granted.done():
            self._observations.aborted_loads += 1
        elif (failure := disruption.fault(FaultKind.LOAD_ERROR)) is not None:
            request.granted.set_exception(ReplyError(failure.reply_status, failure.reply_message))
        else:
            runner = Runner(
                model, request.options, model.seats(self._settings.parallel), self._settings.keep_alive_seconds
            )
            self._loaded[model.weights] = runner
            self._observations.loads[model.name] += 1
            self._observations.load_order.append(model.name)
            request.granted.set_result(self._use(runner, request.keep_alive_seconds))
        self._observations.changed()

    async def _pass_time(self, model: SimulatedModel, disruption: Disruption) -> None:
        if model.load_seconds > 0:
            await asyncio.sleep(model.load_seconds)
        if (stall := disruption.armed(FaultKind.LOAD_STALL)) is not None:
            await stall.released()

    def _use(self, runner: Runner, keep_alive_seconds: float | None) -> Runner:
        runner.references += 1
        runner.stop_timer()
        if keep_alive_seconds is not None:
            # Even while it is drained: from then on it never unloads, and the loop waits for ever (4.3).
            runner.keep_alive_seconds = keep_alive_seconds
        runner.touch()
        return runner

    def _drain(self, runner: Runner) -> None:
        runner.stop_timer()
        runner.keep_alive_seconds = 0
        if runner.references <= 0:
            self._unload(runner)

    def _expired(self, runner: Runner) -> None:
        if runner.references <= 0:
            self._unload(runner)

    def _unload(self, runner: Runner) -> None:
        if self._loaded.get(runner.model.weights) is not runner:
            return
        runner.stop_timer()
        del self._loaded[runner.model.weights]
        self._observations.unloads[runner.model.name] += 1
        if self._settings.unload_seconds > 0:
            asyncio.get_running_loop().call_later(self._settings.unload_seconds, self._unloaded.set)
        else:
            self._unloaded.set()
        self._observations.changed()

    def _has_room(self, model: SimulatedModel) -> bool:
        if not self._loaded:
            return True
        memory = self._settings.memory_bytes
        taken = sum(runner.model.memory_bytes for runner in self._loaded.values())
        return len(self._loaded) < self._settings.max_loaded_models and (
            memory is None or taken + model.memory_bytes <= memory
        )

    def _victim(self) -> Runner:
        by_keep_alive = sorted(self._loaded.values(), key=lambda runner: runner.keep_alive_seconds)
        idle = [runner for runner in by_keep_alive if runner.references <= 0]
        return (idle or by_keep_alive)[0]

    def _count_pending(self) -> None:
        self._observations.pending_loads = len(self._pending)
        self._observations.changed()
