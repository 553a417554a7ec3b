"""What owners were served is stored a moment after their outcomes, for all outcomes of that moment at once.

A crash loses at most that moment of accounting. To store the rows with every outcome would cost each job two more
statements.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from service.errors import ServiceError
from service.job import Line
from service.queue import Order
from service.store.order import OrderStore

_log = logging.getLogger(__name__)

Waiting = Mapping[str, Mapping[str, Mapping[int, int]]]
"""Ready jobs by runner, owner and priority."""

_SAVE_SECONDS = 0.2
_FORGET_SECONDS = 60.0


class OrderKeeping:
    """Loads the order at the start, and stores what has changed of it."""

    def __init__(self, order: Order, store: OrderStore, waiting: Callable[[], Waiting]) -> None:
        self._order = order
        self._store = store
        self._waiting = waiting
        self._changed: dict[tuple[str, str], Line] = {}
        self._has_changes = asyncio.Event()

    async def load(self) -> None:
        """Let the order go on where it was left."""
        self._order.restore(*await self._store.load())

    def note(self, line: Line) -> None:
        """The order has changed by what was served on this line."""
        self._changed[line.runner, line.owner] = line
        self._has_changes.set()

    async def keep(self) -> None:
        """Store changes as they come; never returns."""
        loop = asyncio.get_running_loop()
        forget_at = loop.time() + _FORGET_SECONDS
        while True:
            await self._has_changes.wait()
            await asyncio.sleep(_SAVE_SECONDS)
            await self.save()
            if loop.time() >= forget_at:
                forget_at = loop.time() + _FORGET_SECONDS
                await self._forget()

    async def save(self) -> None:
        """Store what has changed; what cannot be stored now is stored with the next change."""
        if not self._changed:
            return
        changed, self._changed = self._changed, {}
        self._has_changes.clear()
        runners = {line.runner for line in changed.values()}
        try:
            await self._store.save(
                [self._order.runner_row(runner) for runner in runners],
                [self._order.share_row(line) for line in changed.values()],
            )
        except ServiceError as error:
            self._changed = {**changed, **self._changed}
            _log.warning("what owners were served could not be stored: %s", error)

    async def _forget(self) -> None:
        """Forget the owners that stand as newcomers would, so that the rows stay bounded."""
        runners, shares = self._order.forget_idle(self._waiting())
        for share in shares:
            self._changed.pop(share, None)
        try:
            await self._store.drop(runners, shares)
        except ServiceError as error:
            _log.debug("rows of the order were not dropped: %s", error)
