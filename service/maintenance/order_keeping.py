"""What owners were served is stored a moment after their outcomes, for all outcomes of that moment at once.

A crash loses at most that moment of accounting. To store the rows with every outcome would cost each job two more
statements.
"""

from __future__ import annotations

import asyncio
import logging

from service.errors import ServiceError
from service.queue.backlog import Backlog
from service.store.order import OrderStore

_log = logging.getLogger(__name__)

_SAVE_SECONDS = 0.2
_FORGET_SECONDS = 60.0


class OrderKeeping:
    """Loads the order at the start, and stores what has changed of it."""

    def __init__(self, backlog: Backlog, store: OrderStore) -> None:
        self._backlog = backlog
        self._store = store

    async def load(self) -> None:
        """Go on where the order was left."""
        self._backlog.order.restore(*await self._store.load())

    async def keep(self) -> None:
        """Store changes as they come; never returns."""
        loop = asyncio.get_running_loop()
        forget_at = loop.time() + _FORGET_SECONDS
        while True:
            await self._backlog.order.has_changed.wait()
            await asyncio.sleep(_SAVE_SECONDS)
            await self.save()
            if loop.time() >= forget_at:
                forget_at = loop.time() + _FORGET_SECONDS
                await self._forget()

    async def save(self) -> None:
        """Store what has changed; what cannot be stored now is stored with the next change."""
        order = self._backlog.order
        changed = order.take_changes()
        if not changed:
            return
        models = {line.model for line in changed}
        try:
            await self._store.save(
                [order.model_row(model) for model in models], [order.share_row(line) for line in changed]
            )
        except ServiceError as error:
            order.put_back(changed)
            _log.warning("what owners were served could not be stored: %s", error)

    async def _forget(self) -> None:
        """Let go of those who are the same as newcomers: the rows stay bounded."""
        models, shares = self._backlog.order.forget_idle(self._backlog.gauges.waiting_by_model)
        try:
            await self._store.drop(models, shares)
        except ServiceError as error:
            _log.debug("rows of the order were not dropped: %s", error)
