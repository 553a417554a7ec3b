"""The backends: their seats, and whether they answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence

from service.backend.client import BackendClient
from service.config import BackendConfig, HealthConfig
from service.errors import BackendError

_log = logging.getLogger(__name__)

_PROBE_AGAIN_SECONDS = 1.0
"""How soon a backend that does not answer is asked again, when the configured interval is longer."""


class Backend:
    """One Ollama server as this process knows it."""

    def __init__(self, config: BackendConfig, client: BackendClient) -> None:
        self.config = config
        self.client = client
        self.in_flight: dict[str, int] = {}
        self.is_answering = False
        self.trouble: str | None = "not asked yet"
        self.version: str | None = None

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def free_seats(self) -> int:
        return self.config.concurrency - sum(self.in_flight.values())


class Pool:
    """All backends of this process."""

    def __init__(self, backends: Sequence[Backend], health: HealthConfig) -> None:
        self._backends = tuple(backends)
        self._health = health
        self._on_change: Callable[[], None] = lambda: None
        self._ask_now = {backend.name: asyncio.Event() for backend in self._backends}

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._backends)

    @property
    def seats(self) -> int:
        """How many jobs can run at once, over all backends."""
        return sum(backend.config.concurrency for backend in self._backends)

    def when_changed(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when a seat is free or a backend answers again."""
        self._on_change = wake

    def with_free_seat(self) -> list[Backend]:
        """The backends that can take a job now."""
        return [backend for backend in self._backends if backend.is_answering and backend.free_seats > 0]

    def take(self, backend: Backend, model: str) -> None:
        """Reserve a seat for a job of this model."""
        backend.in_flight[model] = backend.in_flight.get(model, 0) + 1

    def free(self, backend: Backend, model: str) -> None:
        """Give a seat back."""
        left = backend.in_flight[model] - 1
        if left:
            backend.in_flight[model] = left
        else:
            del backend.in_flight[model]
        self._on_change()

    def report_absent(self, backend: Backend, error: BackendError) -> None:
        """A call found nobody there: send no more until it answers a probe."""
        self._note_trouble(backend, str(error))
        self._ask_now[backend.name].set()

    async def watch(self) -> None:
        """Ask every backend for its version again and again; never returns."""
        async with asyncio.TaskGroup() as watches:
            for backend in self._backends:
                watches.create_task(self._watch(backend))

    async def _watch(self, backend: Backend) -> None:
        ask_now = self._ask_now[backend.name]
        while True:
            await self._probe(backend)
            pause = self._health.probe_interval_seconds
            if not backend.is_answering:
                pause = min(pause, _PROBE_AGAIN_SECONDS)
                await asyncio.sleep(pause)
                continue
            try:
                async with asyncio.timeout(pause):
                    await ask_now.wait()
            except TimeoutError:
                continue
            ask_now.clear()

    async def _probe(self, backend: Backend) -> None:
        try:
            backend.version = await backend.client.version()
        except BackendError as error:
            self._note_trouble(backend, str(error))
            return
        if not backend.is_answering:
            _log.info("backend %s answers: Ollama %s at %s", backend.name, backend.version, backend.config.url)
            backend.is_answering = True
            backend.trouble = None
            self._on_change()

    def _note_trouble(self, backend: Backend, trouble: str) -> None:
        if backend.trouble is None or backend.trouble == "not asked yet":
            _log.warning("backend %s does not answer, its jobs wait: %s", backend.name, trouble)
        backend.is_answering = False
        backend.trouble = trouble
