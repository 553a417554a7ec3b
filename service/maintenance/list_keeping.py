"""What backends tell of their models is kept, so that lists can be answered while all of them are away.

A list is written when it has changed. When it was last told is written once an hour and at a stop, so that its age is
right within an hour even after a crash.
"""

from __future__ import annotations

import logging

from service.backend.backend import Backend
from service.backend.installed_list import ToldList
from service.backend.models import installed_models
from service.backend.pool import Pool
from service.clock import Clock
from service.errors import ServiceError
from service.store.model_lists import MOST_BYTES, KeptList, ModelListStore

_log = logging.getLogger(__name__)

_KEPT_MS = 90 * 86_400_000
"""Lists of servers that were not heard of for so long are forgotten at the start."""
_TIME_AGAIN_MS = 3_600_000


class ListKeeping:
    """Recalls the lists at the start, and stores what has changed of them."""

    def __init__(self, pool: Pool, store: ModelListStore, clock: Clock) -> None:
        self._pool = pool
        self._store = store
        self._clock = clock
        self._stored: dict[Backend, ToldList] = {}

    async def recall(self) -> None:
        """Show what was told before this process began, until the backends tell anew."""
        try:
            await self._store.prune(self._clock.now_ms() - _KEPT_MS)
        except ServiceError as error:
            _log.warning("old lists of models could not be pruned: %s", error)
        for backend in self._pool:
            kept = await self._store.load(backend.client.url)
            if kept is not None:
                before = ToldList(installed_models({"models": kept.entries}), kept.told_at)
                backend.installed_list.before = self._stored[backend] = before

    async def save(self, *, is_last: bool = False) -> None:
        """Store the lists that have changed; what cannot be stored now is tried again when it is told again."""
        present = tuple(self._pool)
        self._stored = {backend: one for backend, one in self._stored.items() if backend in present}
        for backend in present:
            told = backend.installed_list.told
            if told is None:
                continue
            stored = self._stored.get(backend)
            if stored is None or stored.models != told.models:
                await self._put(backend, told)
            elif is_last or told.told_at - stored.told_at >= _TIME_AGAIN_MS:
                await self._put_time(backend, told)

    async def _put(self, backend: Backend, told: ToldList) -> None:
        kept = KeptList([model.entry for model in told.models], told.told_at)
        try:
            is_kept = await self._store.put(backend.client.url, kept)
        except ServiceError as error:
            _log.warning("the models of backend %s could not be stored: %s", backend.name, error)
            return
        self._stored[backend] = told
        if not is_kept:
            _log.warning(
                "the list of backend %s has more than %d MiB and is not kept: while no backend answers, its models are "
                "listed only until the next restart",
                backend.name, MOST_BYTES >> 20,
            )  # fmt: skip

    async def _put_time(self, backend: Backend, told: ToldList) -> None:
        try:
            await self._store.put_time(backend.client.url, told.told_at)
        except ServiceError as error:
            # With an older time the list only seems older than it is.
            _log.debug("when backend %s last told its models could not be stored: %s", backend.name, error)
        else:
            self._stored[backend] = told
