"""What backends were seen to hold at once is kept, so that it need not be learnt anew after each start.

It is written when it has changed. A backend takes it over once it has told its version and its models.
"""

from __future__ import annotations

import logging

from service.backend.backend import Backend
from service.backend.fits_by_digest import FitsByDigest, by_digest
from service.backend.pool import Pool
from service.clock import Clock
from service.errors import ServiceError
from service.job import model_key
from service.store.model_fits import KeptFits, ModelFitStore

_log = logging.getLogger(__name__)

_KEPT_MS = 90 * 86_400_000
"""What is known of servers that were not in the configuration for so long is forgotten at the start."""


class FitKeeping:
    """Recalls what fits at the start, and stores what has changed of it."""

    def __init__(self, pool: Pool, store: ModelFitStore, clock: Clock) -> None:
        self._pool = pool
        self._store = store
        self._clock = clock
        self._stored: dict[Backend, tuple[int, str | None]] = {}
        """How many changes were stored of each backend, and with which version; None: nothing is."""

    async def recall(self) -> None:
        """Give the backends what was known of them before this process began."""
        now = self._clock.now_ms()
        for backend in self._pool:
            await self._recall(backend)
        try:
            for backend in self._pool:
                await self._store.note_use(backend.client.url, now)
            await self._store.prune(now - _KEPT_MS)
        except ServiceError as error:
            _log.warning("what fitted on old backends could not be pruned: %s", error)

    async def save(self) -> None:
        """Store what has changed; what cannot be stored now is tried again."""
        present = tuple(self._pool)
        self._stored = {backend: one for backend, one in self._stored.items() if backend in present}
        for backend in present:
            if backend not in self._stored:
                # It came with a new configuration.
                await self._recall(backend)
            if backend in self._stored and backend.installed is not None and backend.version is not None:
                await self._save(backend, backend.version)

    async def _recall(self, backend: Backend) -> None:
        try:
            kept = await self._store.load(backend.client.url)
        except ServiceError as error:
            _log.warning("what fits on backend %s could not be read: %s", backend.name, error)
            return
        if kept is not None:
            backend.recall_fits(FitsByDigest(*kept))
        self._stored[backend] = (0, None if kept is None else kept.version)

    async def _save(self, backend: Backend, version: str) -> None:
        fitting = backend.placement.fitting
        state, stored = (fitting.changes, version), self._stored[backend]
        if state == stored or (not fitting.changes and stored[1] is None):
            return
        digests = {model_key(model.name): model.digest for model in backend.installed or () if model.digest}
        kept = KeptFits(*by_digest(fitting, version, digests))
        try:
            await self._store.put(backend.client.url, kept, self._clock.now_ms())
        except ServiceError as error:
            _log.warning("what fits on backend %s could not be stored: %s", backend.name, error)
        else:
            self._stored[backend] = state
