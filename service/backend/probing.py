"""Asking backends how they are: again and again, soon when one is away, often while one loads a model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from service.backend.backend import Backend
from service.backend.loaded_list import MOST_UNTOLD_SECONDS
from service.backend.models import Listed
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
_TOGETHER_SECONDS = 0.25
"""How long the news that a backend is there waits for what it has loaded. Mostly both come together, and its first job
then goes where its model is.
"""


class Probing:
    """``changed`` is called after every answer.

    Version and installed models say whether a backend is there. Which models it has loaded is asked beside that: a
    healthy server can be slow to tell, and keeps nobody waiting by it.
    """

    def __init__(self, health: HealthConfig, clock: Clock, changed: Callable[[], None]) -> None:
        self._health = health
        self._clock = clock
        self._changed = changed
        self.lists_told = asyncio.Event()
        """Set each time that a backend has told its installed models."""
        self._listing: dict[Backend, asyncio.Task[None]] = {}
        """The questions for loaded models that are under way, or were."""
        self._asked_again: set[Backend] = set()
        """Those whose question was under way when it was asked anew: its answer may be older than what is to be known.
        """

    async def watch(self, backend: Backend) -> None:
        """Ask one backend again and again, until this is cancelled; never returns."""
        try:
            while True:
                backend.wants_probe.clear()
                await self.probe(backend)
                if backend.is_answering:
                    await self._learn_weights(backend)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause(backend)):
                        await backend.wants_probe.wait()
                        if not backend.is_answering:
                            # Failing jobs ask for probes too. A server that is gone must not be asked in a tight loop.
                            await asyncio.sleep(self._pause(backend))
        finally:
            self._stop_listing(backend)

    async def probe(self, backend: Backend) -> None:
        """Ask once for version and installed models, and for the loaded ones, unless that is under way."""
        client = backend.client
        was_away = not backend.is_answering
        try:
            backend.note_version(await client.version())
            installed = await client.tags()
        except BackendError as error:
            self._stop_listing(backend)
            self.note_trouble(backend, str(error))
            return
        backend.note_installed(installed)
        backend.installed_list.told_at = self._clock.now_ms()
        self.lists_told.set()
        if was_away:
            backend.note_absence()
        listing = self._list_loaded(backend)
        if not backend.loaded_list.is_old:
            await asyncio.wait((listing,), timeout=_TOGETHER_SECONDS)
        if backend.loaded_list.is_overdue(self._clock.now_ms()):
            self._note_untold(backend)
            return
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

    def _list_loaded(self, backend: Backend) -> asyncio.Task[None]:
        """The question for loaded models: the one that is under way, or a new one."""
        listing = self._listing.get(backend)
        if listing is None or listing.done():
            if listing is not None:
                listing.result()
            listing = self._listing[backend] = asyncio.create_task(self._until_listed(backend))
        else:
            self._asked_again.add(backend)
        return listing

    def _stop_listing(self, backend: Backend) -> None:
        backend.loaded_list.begin_anew()
        listing = self._listing.pop(backend, None)
        if listing is not None:
            listing.cancel()

    async def _until_listed(self, backend: Backend) -> None:
        """Ask for the loaded models until the answer comes. Meanwhile the last list stands."""
        known = backend.loaded_list
        while True:
            self._asked_again.discard(backend)
            asked_at = self._clock.now_ms()
            try:
                loaded = await backend.client.ps()
            except BackendError as error:
                if not known.is_old:
                    _log.warning("backend %s does not tell what it has loaded: %s", backend.name, error)
                known.missed(asked_at, str(error))
                if known.is_overdue(self._clock.now_ms()):
                    self._note_untold(backend)
                await asyncio.sleep(min(self._health.probe_interval_seconds, _PROBE_AGAIN_SECONDS))
                continue
            now = self._clock.now_ms()
            known.told(loaded, now)
            lines = [Listed(model_key(one.name), one.context_length, one.stays_until_ms) for one in loaded]
            backend.placement.listed(lines, now, asked_at)
            self._changed()
            if backend not in self._asked_again:
                return

    def _note_untold(self, backend: Backend) -> None:
        """It has not told for too long what it has loaded: it is not well, whatever else it tells."""
        self.note_trouble(
            backend,
            f"it has not told for {MOST_UNTOLD_SECONDS} s which models are loaded: {backend.loaded_list.trouble}",
        )

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
            where = backend.client.url
            _log.warning("backend %s at %s does not answer, its jobs wait: %s", backend.name, where, trouble)
        backend.is_answering = False
        backend.trouble = trouble

    def _pause(self, backend: Backend) -> float:
        pause = self._health.probe_interval_seconds
        if not backend.is_answering:
            return min(pause, _PROBE_AGAIN_SECONDS)
        placement = backend.placement
        is_changing = (
            backend.silence.hung
            or placement.holds.hold is not None
            or any(placement.is_loading(runner) for runner in placement.in_flight)
        )
        return min(pause, _LOADING_SECONDS) if is_changing else pause
