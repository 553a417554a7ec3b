"""The backends: their seats, what they have loaded, and whether they answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from aiohttp import ClientSession

from service.backend.breaker import Breaker
from service.backend.client import BackendClient
from service.backend.models import InstalledModel, LoadedModel
from service.backend.placement import Placement
from service.clock import Clock
from service.config import BackendConfig, Config, ModelConfig
from service.errors import BackendError, Fault, NotFoundError
from service.job import model_key, model_of_runner

_log = logging.getLogger(__name__)

_PROBE_AGAIN_SECONDS = 1.0
"""How soon a backend that does not answer is asked again, when the configured interval is longer."""
_LOADING_SECONDS = 0.5
"""How often ``/api/ps`` is asked while a model loads: it is listed before its first token comes."""
_NAMES_SHOWN = 20
_FRESH_MS = 1_000


class Backend:
    """One Ollama server as this process knows it."""

    def __init__(self, config: BackendConfig, client: BackendClient, breaker: Breaker, max_swap_wait_ms: float) -> None:
        self.config = config
        self.client = client
        self.breaker = breaker
        self.placement = Placement(max_swap_wait_ms)
        self.is_answering = False
        self.is_drained = False
        """The operator wants no more jobs there."""
        self.trouble: str | None = None
        self.version: str | None = None
        self.installed: tuple[InstalledModel, ...] | None = None
        """As last told; None until it has been."""
        self.loaded: tuple[LoadedModel, ...] = ()
        self.listed_at = 0
        """When its models were last asked for."""
        self.idle_since = 0
        self.wants_probe = asyncio.Event()
        self._keys: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def in_flight(self) -> int:
        return sum(self.placement.in_flight.values())

    @property
    def free_seats(self) -> int:
        return self.config.concurrency - self.in_flight

    @property
    def is_available(self) -> bool:
        """Whether a job may be sent now, seats aside."""
        return self.is_answering and not self.is_drained and self.breaker.lets_through

    def has_model(self, model: str) -> bool:
        """Whether the model was installed when it was last asked, and the configuration lets us use it."""
        return model in self._keys

    def note_installed(self, installed: tuple[InstalledModel, ...]) -> None:
        """Remember what ``/api/tags`` says."""
        allowed = {model_key(name) for name in self.config.models}
        keys = {model_key(model.name) for model in installed}
        self.installed = installed
        self._keys = frozenset(keys & allowed if allowed else keys)

    @property
    def usable_models(self) -> frozenset[str]:
        """The keys of the models that may be used here."""
        return self._keys


class Pool:
    """All backends of this process."""

    def __init__(self, backends: Sequence[Backend], config: Config, clock: Clock) -> None:
        self._backends = tuple(backends)
        self._health = config.health
        self._parallel = _parallel(config.models)
        self._clock = clock
        self._on_change: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends)

    @property
    def seats(self) -> int:
        """How many jobs can run at once, over all backends."""
        return sum(backend.config.concurrency for backend in self._backends)

    def when_changed(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when a seat is free, a model is loaded or a backend answers again."""
        self._on_change = wake

    def with_free_seat(self) -> list[Backend]:
        """The backends that can take a job now, the longest idle first."""
        free = [backend for backend in self._backends if backend.is_available and backend.free_seats > 0]
        return sorted(free, key=lambda backend: (backend.in_flight > 0, backend.idle_since)) if len(free) > 1 else free

    def may_take(self, backend: Backend, runner: str) -> bool:
        """Whether a job of this runner may be sent to this backend: its model is there, and its share is not used up.

        A model that nobody has goes to anybody who answers, so that Ollama itself says that it is not there.
        """
        model = model_of_runner(runner)
        if not backend.has_model(model) and any(one.has_model(model) for one in self._backends):
            return False
        share = self._parallel.get(model)
        if share is None:
            return True
        used = sum(jobs for one, jobs in backend.placement.in_flight.items() if model_of_runner(one) == model)
        return used < share

    def loaded_elsewhere(self, backend: Backend) -> set[str]:
        """Runners that the other backends have, load or are about to load."""
        found: set[str] = set()
        for other in self._backends:
            if other is not backend and other.is_available:
                found |= other.placement.residences.keys()
                if other.placement.swap is not None:
                    found.add(other.placement.swap.runner)
        return found

    def take(self, backend: Backend, runner: str) -> None:
        """Reserve a seat for a job of this runner."""
        backend.breaker.begin()
        backend.placement.sent(runner, self._clock.now_ms())

    def free(self, backend: Backend, runner: str) -> None:
        """Give a seat back."""
        backend.placement.ended(runner)
        if not backend.in_flight:
            backend.idle_since = self._clock.now_ms()
        self._on_change()

    def answered(self, backend: Backend, runner: str) -> None:
        """A job got the first byte of its answer."""
        if backend.placement.answered(runner, self._clock.now_ms()):
            backend.wants_probe.set()
            self._on_change()

    def report(self, backend: Backend, error: BackendError | None) -> None:
        """How a call ended, for the breaker; None: as it should."""
        if error is None or error.fault in (Fault.PERMANENT, Fault.BUSY):
            backend.breaker.succeeded()
            return
        backend.breaker.failed()
        if error.fault is Fault.ABSENT:
            self._note_trouble(backend, str(error))
            backend.wants_probe.set()

    async def look_for(self, model: str) -> bool:
        """Whether any backend has the model; the lists are asked for again before the answer is no."""
        if not self.knows(model):
            await self.refresh_lists()
        return self.knows(model)

    async def refresh_lists(self) -> None:
        """Ask every backend that answers for its models, unless that has just been done."""
        stale = self._clock.now_ms() - _FRESH_MS
        await asyncio.gather(
            *(self._probe(backend) for backend in self._backends if backend.is_answering and backend.listed_at < stale)
        )

    async def require_model(self, model: str) -> None:
        """Raises NotFoundError for a model that no backend has, with the names that exist.

        While no backend answers, any model may be there.
        """
        if await self.look_for(model) or not any(backend.is_answering for backend in self._backends):
            return
        names = sorted({one.name for backend in self._backends for one in backend.installed or ()})
        shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if len(names) > _NAMES_SHOWN else "")
        raise NotFoundError(f"no backend has the model {model!r}; there are: {shown or 'none, pull one first'}")

    async def watch(self) -> None:
        """Ask every backend how it is, again and again; never returns."""
        async with asyncio.TaskGroup() as watches:
            for backend in self._backends:
                watches.create_task(self._watch(backend))

    def knows(self, model: str) -> bool:
        """Whether any backend had the model when it was last asked."""
        key = model_key(model)
        return any(backend.has_model(key) for backend in self._backends)

    async def _watch(self, backend: Backend) -> None:
        while True:
            backend.wants_probe.clear()
            await self._probe(backend)
            try:
                async with asyncio.timeout(self._pause(backend)):
                    await backend.wants_probe.wait()
                    if not backend.is_answering:
                        # Its failures ask for a probe as well; a server that is gone is not asked in a tight loop.
                        await asyncio.sleep(self._pause(backend))
            except TimeoutError:
                continue

    def _pause(self, backend: Backend) -> float:
        pause = self._health.probe_interval_seconds
        if not backend.is_answering:
            return min(pause, _PROBE_AGAIN_SECONDS)
        placement = backend.placement
        is_loading = any(placement.is_loading(runner) for runner in placement.in_flight)
        return min(pause, _LOADING_SECONDS) if is_loading else pause

    async def _probe(self, backend: Backend) -> None:
        client = backend.client
        try:
            backend.version = await client.version()
            installed, backend.loaded = await asyncio.gather(client.tags(), client.ps())
        except BackendError as error:
            self._note_trouble(backend, str(error))
            return
        backend.note_installed(installed)
        backend.listed_at = self._clock.now_ms()
        backend.placement.listed({model_key(model.name) for model in backend.loaded}, self._clock.now_ms())
        if not backend.is_answering:
            _log.info("backend %s answers: Ollama %s at %s", backend.name, backend.version, backend.client.url)
            backend.is_answering = True
            backend.trouble = None
        self._on_change()

    def _note_trouble(self, backend: Backend, trouble: str) -> None:
        if backend.trouble is None:
            _log.warning("backend %s does not answer, its jobs wait: %s", backend.name, trouble)
        backend.is_answering = False
        backend.trouble = trouble


def _parallel(models: Mapping[str, ModelConfig]) -> dict[str, int]:
    return {model_key(name): one.parallel for name, one in models.items() if one.parallel is not None}


def build_backend(backend: BackendConfig, session: ClientSession, config: Config, clock: Clock) -> Backend:
    """A backend with the client, the breaker and the patience that the configuration asks for."""
    client = BackendClient(
        session,
        backend.url,
        backend.headers,
        name=backend.name,
        quick_seconds=config.health.probe_timeout_seconds,
    )
    breaker = Breaker(
        lambda: clock.now_ms() / 1000,
        threshold=config.breaker.failure_threshold,
        open_seconds=config.breaker.open_seconds,
    )
    return Backend(backend, client, breaker, config.queue.max_swap_wait_seconds * 1000)
