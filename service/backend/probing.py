"""Asking backends how they are: again and again, soon when one is away, often while one loads a model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from service.backend.backend import Backend
from service.clock import Clock
from service.config import HealthConfig
from service.errors import BackendError, Fault
from service.job import model_key

_log = logging.getLogger(__name__)

_PROBE_AGAIN_SECONDS = 1.0
"""How soon a backend that does not answer is asked again, when the configured interval is longer."""
_SHOWN_AT_ONCE = 16
"""Models that ``/api/show`` is asked for between two probes."""
_LOADING_SECONDS = 0.5
"""How often ``/api/ps`` is asked while a model loads: it is listed before its first token comes."""


class Probing:
    """``changed`` is called after every answer."""

    def __init__(self, health: HealthConfig, clock: Clock, changed: Callable[[], None]) -> None:
        self._health = health
        self._clock = clock
        self._changed = changed

    async def watch(self, backend: Backend) -> None:
        """Ask one backend again and again, until this is cancelled; never returns."""
        while True:
            backend.wants_probe.clear()
            await self.probe(backend)
            if backend.is_answering:
                await self._learn_weights(backend)
            try:
                async with asyncio.timeout(self._pause(backend)):
                    await backend.wants_probe.wait()
                    if not backend.is_answering:
                        # Failing jobs ask for probes too. A server that is gone must not be asked in a tight loop.
                        await asyncio.sleep(self._pause(backend))
            except TimeoutError:
                continue

    async def probe(self, backend: Backend) -> None:
        """Ask once for version, installed and loaded models."""
        client = backend.client
        was_away = not backend.is_answering
        try:
            backend.version = await client.version()
            installed, backend.loaded = await asyncio.gather(client.tags(), client.ps())
        except BackendError as error:
            self.note_trouble(backend, str(error))
            return
        now = self._clock.now_ms()
        backend.note_installed(installed)
        backend.listed_at = backend.loaded_at = now
        backend.placement.listed({model_key(model.name) for model in backend.loaded}, now)
        # If a job has found the backend gone meanwhile, that is newer than this answer: the next one will tell.
        if was_away and not backend.is_answering:
            _log.info("backend %s answers: Ollama %s at %s", backend.name, backend.version, backend.client.url)
            backend.is_answering = True
            backend.trouble = None
            backend.breakers.came_back()
        self._changed()

    async def is_there(self, backend: Backend) -> bool:
        """Whether the backend tells its version; when it does not, it has trouble."""
        try:
            await backend.client.version()
        except BackendError as error:
            self.note_trouble(backend, str(error))
            return False
        return True

    async def _learn_weights(self, backend: Backend) -> None:
        """Ask which of its models share their weights, a few at a time; the rest comes after the next probe."""
        for model in backend.sharing.unknown(backend.installed or ())[:_SHOWN_AT_ONCE]:
            if backend.wants_probe.is_set():
                return
            try:
                weights = await backend.client.weights(model.name)
            except BackendError as error:
                if error.status is None:
                    return
                if error.fault is not Fault.PERMANENT:
                    continue
                weights = None
            backend.note_weights(model, weights)

    def note_trouble(self, backend: Backend, trouble: str) -> None:
        """The backend does not answer; ``trouble`` says why."""
        if backend.trouble is None:
            _log.warning("backend %s does not answer, its jobs wait: %s", backend.name, trouble)
        backend.is_answering = False
        backend.trouble = trouble

    def _pause(self, backend: Backend) -> float:
        pause = self._health.probe_interval_seconds
        if not backend.is_answering:
            return min(pause, _PROBE_AGAIN_SECONDS)
        placement = backend.placement
        is_changing = backend.silence.hung or any(placement.is_loading(runner) for runner in placement.in_flight)
        return min(pause, _LOADING_SECONDS) if is_changing else pause
