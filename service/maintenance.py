"""What must be done now and then: forget old jobs, and say that this process lives."""

from __future__ import annotations

import asyncio
import logging

from service.clock import Clock
from service.errors import CorralError
from service.jobs import Jobs

_log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_PRUNE_SECONDS = 600.0
_BATCH_PAUSE_SECONDS = 0.05


async def prune_regularly(jobs: Jobs, clock: Clock, retention_days: float) -> None:
    """Forget jobs that finished longer ago than ``retention_days``, in small batches; never returns."""
    while True:
        try:
            pruned = await jobs.prune(clock.now_ms() - int(retention_days * _DAY_MS))
            pause = _BATCH_PAUSE_SECONDS if pruned else _PRUNE_SECONDS
        except CorralError as error:
            _log.warning("old jobs could not be pruned: %s", error)
            pause = _PRUNE_SECONDS
        await asyncio.sleep(pause)
