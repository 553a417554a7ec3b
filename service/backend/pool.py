"""The backends: their seats, what they have loaded, and whether they answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from service.backend.backend import Backend, build_backend
from service.backend.breakers import Evidence, Trial
from service.backend.catalogue import Catalogue
from service.backend.placement import is_remote
from service.backend.probing import Probing
from service.backend.shares import Shares
from service.clock import Clock
from service.config import BackendConfig, Config
from service.errors import BackendError, Fault, NotFoundError
from service.job import model_of_runner
from service.signal import Signal

__all__ = ["Backend", "Pool", "build_backend"]

_log = logging.getLogger(__name__)

_REMEMBERED_LOADS = 256


class Pool:
    """All backends of this process. ``work`` is set when a seat is free, a model is loaded or a backend is back."""

    def __init__(self, backends: Sequence[Backend], config: Config, clock: Clock, work: asyncio.Event) -> None:
        self._backends = tuple(backends)
        self._leaving: list[Backend] = []
        self.shares = Shares(config.models, clock)
        """How many of a backend's seats each model may have."""
        self._clock = clock
        self._load_ms: dict[str, float] = {}
        self._work = work
        self.load_ended = Signal()
        """Sent when a load has ended, or may have."""
        self._waiters: list[asyncio.Future[None]] = []
        self._members_changed = asyncio.Event()
        self._probing = Probing(config.health, clock, self._on_change)
        self.lists_told = self._probing.lists_told
        """Set each time that a backend has told its installed models."""
        self.catalogue = Catalogue(self, self._probing, clock, config.health.probe_timeout_seconds)
        """Which models there are."""

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends)

    def find(self, name: str) -> Backend:
        """The backend of this name. Raises NotFoundError."""
        for backend in self._backends:
            if backend.name == name:
                return backend
        names = ", ".join(backend.name for backend in self._backends)
        raise NotFoundError(f"there is no backend {name!r}; there are: {names}")

    @property
    def seats(self) -> int:
        """How many jobs can run at once, over all backends."""
        return sum(backend.config.concurrency for backend in self._backends)

    @property
    def wanted_consumers(self) -> int:
        """How many jobs may be at work: in each seat one that runs and one whose outcome is on its way to the disk, and
        after a reload those that still run beyond the seats.
        """
        return 2 * sum(max(backend.config.concurrency, backend.in_flight) for backend in self._backends) + sum(
            backend.in_flight for backend in self._leaving
        )

    # Seats

    def with_free_seat(self) -> list[Backend]:
        """The backends that can take a job now, the longest idle first."""
        free = [backend for backend in self._backends if backend.is_available and backend.free_seats > 0]
        return sorted(free, key=lambda backend: (backend.in_flight > 0, backend.idle_since)) if len(free) > 1 else free

    def may_take(self, backend: Backend, runner: str) -> bool:
        """Whether a job of this runner may be sent to this backend, faults aside: its model is there, and its share of
        the seats is not used up.

        A job for a model that no backend has may go to any, so that Ollama itself says that the model is not there.
        """
        model = model_of_runner(runner)
        if not self.may_have(backend, model):
            return False
        share = self.shares.share(backend, model)
        return share is None or _used(backend, model) < share

    def may_begin(self, backend: Backend, model: str, owner: str) -> bool:
        """Whether a job of this model and owner may be sent there, as far as faults go."""
        return backend.breakers.may_begin(model, owner) and not backend.silence.is_hung(_own(backend, model))

    def is_sound(self, backend: Backend, model: str) -> bool:
        """Whether no fault keeps back any job of this model there."""
        return backend.breakers.are_closed_for(model) and not backend.silence.is_hung(_own(backend, model))

    def may_have(self, backend: Backend, model: str) -> bool:
        """Whether jobs for this model may go to this backend, as far as the lists of models say."""
        return backend.has_model(model) or not (
            backend.hides(model) or any(one.has_model(model) for one in self._backends)
        )

    def serving(self, runner: str) -> list[Backend]:
        """The backends that have the model of this runner and take its jobs."""
        model = model_of_runner(runner)
        return [
            backend
            for backend in self._backends
            if backend.is_available and backend.has_model(model) and backend.breakers.let_through(model)
        ]

    def seats_for(self, backend: Backend, runner: str) -> int:
        """How many of a backend's seats the jobs of this runner may have, free or not."""
        share, seats = self.shares.share(backend, model_of_runner(runner)), backend.config.concurrency
        return seats if share is None else min(seats, share)

    def free_seats_for(self, backend: Backend, runner: str) -> int:
        """How many of a backend's seats a job of this runner could have now."""
        model = model_of_runner(runner)
        share = self.shares.share(backend, model)
        free = backend.free_seats if share is None else min(backend.free_seats, share - _used(backend, model))
        return max(0, free)

    def load_ms(self, runner: str) -> float:
        """How long the last load of this runner took; for one that was never loaded, the mean of all others."""
        known = self._load_ms
        return known[runner] if runner in known else sum(known.values()) / max(1, len(known))

    def loaded_elsewhere(self, backend: Backend, runners: Iterable[str]) -> set[str]:
        """Those of the runners that other backends have, load or are about to load, and whose jobs they take."""
        others = [other for other in self._backends if other is not backend and other.is_available]
        if not others:
            return set()
        return {
            runner
            for runner in runners
            if any(one.placement.has(runner) and one.breakers.let_through(model_of_runner(runner)) for one in others)
        }

    def take(self, backend: Backend, runner: str, owner: str) -> Trial:
        """Reserve a seat for a job of this runner and owner, which may begin there. Returns of what it is the trial."""
        trial = backend.breakers.begin(model_of_runner(runner), owner)
        loads = backend.placement.swaps
        backend.placement.sent(runner, self._clock.now_ms())
        if backend.placement.swaps > loads:
            # While a model loads the backend is asked often: once it lists the model, more jobs can follow the first.
            backend.wants_probe.set()
        return trial

    def free(self, backend: Backend, runner: str) -> None:
        """Give a seat back."""
        backend.placement.ended(runner, self._clock.now_ms())
        if backend.placement.holds.hold is not None:
            # Only a look begun from now on says how the load stands.
            backend.wants_probe.set()
        if not backend.in_flight:
            backend.idle_since = self._clock.now_ms()
            if backend.is_leaving and backend in self._leaving:
                self._leaving.remove(backend)
        self._on_change()

    # What happened to a job

    def answered(self, backend: Backend, runner: str) -> None:
        """A job got the first byte of its answer."""
        is_news = backend.placement.answered(runner, self._clock.now_ms())
        residence = backend.placement.residences.get(backend.placement.own(runner))
        if residence is not None and (runner in self._load_ms or len(self._load_ms) < _REMEMBERED_LOADS):
            self._load_ms[runner] = residence.load_ms
        if is_news:
            backend.wants_probe.set()
            self._on_change()

    def spoke(self, backend: Backend, runner: str, trial: Trial) -> None:
        """A job got the first token of its answer."""
        backend.breakers.spoke(model_of_runner(runner), trial)

    def completed(self, backend: Backend, runner: str, used_ms: float, tokens: int) -> None:
        """A job has its whole answer."""
        backend.breakers.succeeded(model_of_runner(runner))
        backend.work.add(self._clock.now_ms(), used_ms, tokens)

    def failed(
        self, backend: Backend, runner: str, error: BackendError, evidence: Evidence, trial: Trial, *, has_spoken: bool
    ) -> None:
        """A call failed: tell the breakers whose fault that was. ``has_spoken``: a token of its answer had come."""
        model = model_of_runner(runner)
        weights = None if is_remote(runner, backend.placement.remote) else _own(backend, model)
        breakers = backend.breakers
        opened = breakers.failed(model, weights, error, evidence, trial, has_spoken=has_spoken)
        if opened is not None:
            kept_back = "jobs" if opened is breakers.server else f"jobs for {model}"
            _log.warning(
                "backend %s: %d faults without a success, %s of the same callers wait %g s: %s",
                backend.name, opened.faults, kept_back, round(opened.rest_seconds, 1), error,
            )  # fmt: skip
        if error.fault is Fault.ABSENT:
            self._probing.note_trouble(backend, str(error))
        if error.fault is Fault.ABSENT or error.code == "connection_lost":
            # The backend may be gone, and that must be noticed before it is back.
            backend.wants_probe.set()

    async def is_there(self, backend: Backend) -> bool:
        """Whether the backend answers within a probe's time; when it does not, that is noted."""
        return await self._probing.is_there(backend)

    def may_be_elsewhere(self, backend: Backend, runner: str) -> bool:
        """Whether another backend has the model, or was never asked; this one says that it does not have it."""
        model = model_of_runner(runner)
        backend.note_missing(model)
        others = [one for one in self._backends if one is not backend]
        return any(one.has_model(model) or one.installed is None for one in others)

    # The operator

    def drain(self, name: str) -> Backend:
        """Send a backend nothing more until it is resumed; what runs there ends by itself. Raises NotFoundError."""
        backend = self.find(name)
        backend.is_drained = True
        return backend

    def resume(self, name: str) -> Backend:
        """Undo a drain. Raises NotFoundError."""
        backend = self.find(name)
        backend.is_drained = False
        self._on_change()
        return backend

    def reconfigure(self, config: Config, build: Callable[[BackendConfig], Backend]) -> None:
        """Have the backends of a new configuration. Those that are gone from it finish what they run."""
        known = {backend.name: backend for backend in (*self._leaving, *self._backends)}
        max_swap_wait_ms = config.queue.max_swap_wait_seconds * 1000
        present = []
        for one in config.backends:
            backend = known.get(one.name)
            if backend is None or not backend.is_at(one):
                backend = build(one)
            backend.reconfigure(one, max_swap_wait_ms)
            present.append(backend)
        gone = [backend for backend in dict.fromkeys((*self._leaving, *self._backends)) if backend not in present]
        for backend in gone:
            backend.is_leaving = True
        self._leaving = [backend for backend in gone if backend.in_flight]
        self._backends = tuple(present)
        self.shares.replace(config.models)
        self._members_changed.set()
        self._on_change()

    async def watch(self) -> None:
        """Ask every backend how it is, again and again; never returns."""
        watched: dict[Backend, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as watches:
            while True:
                self._members_changed.clear()
                for backend in self._backends:
                    if backend not in watched:
                        watched[backend] = watches.create_task(self._probing.watch(backend))
                for backend in [one for one in watched if one not in self._backends]:
                    watched.pop(backend).cancel()
                await self._members_changed.wait()

    async def changed(self) -> None:
        """Wait until a seat, a model or a backend has changed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _on_change(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._work.set()
        self.load_ended.send()


def _own(backend: Backend, model: str) -> str:
    """The model under the name that its runner has there."""
    return model_of_runner(backend.placement.own(model))


def _used(backend: Backend, model: str) -> int:
    own = _own(backend, model)
    return sum(jobs for one, jobs in backend.placement.in_flight.items() if _own(backend, one) == own)
