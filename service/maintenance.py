"""What must be done now and then: forget old jobs, and say that this process lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from service.clock import Clock
from service.errors import CorralError

_log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_PRUNE_SECONDS = 600.0
_BATCH_PAUSE_SECONDS = 0.05


async def prune_regularly(prune: Callable[[int], Awaitable[int]], clock: Clock, retention_days: float) -> None:
    """Forget what is older than ``retention_days``, in small batches; never returns.

    ``prune`` forgets a batch of what is older than a moment (milliseconds since the epoch), and says how many.
    """
    while True:
        try:
            pruned = await prune(clock.now_ms() - int(retention_days * _DAY_MS))
            pause = _BATCH_PAUSE_SECONDS if pruned else _PRUNE_SECONDS
        except CorralError as error:
            _log.warning("what is old could not be pruned: %s", error)
            pause = _PRUNE_SECONDS
        await asyncio.sleep(pause)
