"""What must be done now and then: forget what is old, and keep up with the processes that share the work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from service.clock import Clock
from service.errors import ServiceError
from service.jobs import Jobs
from service.jobs.records import Change
from service.jobs.retention import Retention
from service.maintenance.fit_keeping import FitKeeping
from service.maintenance.list_keeping import ListKeeping
from service.store.database import Database
from service.store.processes import ProcessStore

_log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_PRUNE_SECONDS = 600.0
_CONTENTS_SECONDS = 30.0
_BATCH_PAUSE_SECONDS = 0.05
_COUNT_AGAIN_SECONDS = 10.0
"""How soon to look again while others change jobs: a count may have counted what was told just before it."""
_LOOK_AGAIN_SECONDS = 60.0
"""How soon to look again while others tell nothing."""
_NEWS_PAUSE_SECONDS = 1.0
"""While a model loads, backends are asked twice a second."""


async def prune_regularly(prune: Callable[[int], Awaitable[int]], clock: Clock, retention_days: float) -> None:
    """Forget what is older than ``retention_days``, in small batches; never returns.

    ``prune`` forgets one batch of what is older than the moment it is given, and says how many that were.
    """
    while True:
        try:
            pruned = await prune(clock.now_ms() - int(retention_days * _DAY_MS))
            pause = _BATCH_PAUSE_SECONDS if pruned else _PRUNE_SECONDS
        except ServiceError as error:
            _log.warning("what is old could not be pruned: %s", error)
            pause = _PRUNE_SECONDS
        await asyncio.sleep(pause)


async def delete_contents(retention: Retention, clock: Clock) -> None:
    """Delete the contents of jobs whose time has come, and the oldest where room is needed; never returns."""
    while True:
        try:
            await retention.tend(clock.now_ms())
            await retention.make_room()
        except ServiceError as error:
            _log.warning("contents of jobs could not be deleted: %s", error)
        await asyncio.sleep(_CONTENTS_SECONDS)


async def keep_news(told: asyncio.Event, lists: ListKeeping, fits: FitKeeping) -> None:
    """Store what backends tell, as it changes; never returns. ``told`` is set each time that one has told something."""
    while True:
        await told.wait()
        told.clear()
        await lists.save()
        await fits.save()
        await asyncio.sleep(_NEWS_PAUSE_SECONDS)


async def beat_and_rescue(processes: ProcessStore, jobs: Jobs, beat_seconds: float, dead_after_seconds: float) -> None:
    """Say that this process lives, and take over the jobs of processes that have died; never returns."""
    loop = asyncio.get_running_loop()
    judges_from = loop.time()
    while True:
        await asyncio.sleep(beat_seconds)
        try:
            await processes.beat()
            if loop.time() < judges_from:
                continue
            dead = await processes.lost(dead_after_seconds)
            if dead:
                rescued = await jobs.upkeep.rescue(dead)
                _log.warning("%d processes are dead; %d of their jobs were taken back", len(dead), rescued)
            await processes.forget(dead_after_seconds)
        except ServiceError as error:
            _log.warning("this process could not say that it lives, nor ask about the others: %s", error)
            # While the database was away no process could say that it lives.
            judges_from = loop.time() + dead_after_seconds


async def hear_others(database: Database, jobs: Jobs, poll_seconds: float) -> None:
    """Take over what other processes change, and look again when something may have been missed; never returns."""
    heard: list[str] = []
    news = asyncio.Event()

    def receive(payload: str) -> None:
        heard.append(payload)
        news.set()

    database.listen(receive)
    loop = asyncio.get_running_loop()
    look_again_at = loop.time()
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(poll_seconds):
                await news.wait()
        news.clear()
        payloads, heard[:] = heard[:], []
        changes = [change for payload in payloads if (change := Change.parse(payload)) is not None]
        try:
            has_missed = len(changes) < len(payloads)
            if changes:
                has_missed |= not await jobs.other_processes.catch_up(changes)
            if payloads:
                look_again_at = min(look_again_at, loop.time() + (poll_seconds if has_missed else _COUNT_AGAIN_SECONDS))
            if loop.time() >= look_again_at:
                is_set = await jobs.other_processes.look_again()
                look_again_at = loop.time() + (_LOOK_AGAIN_SECONDS if is_set else poll_seconds)
        except ServiceError as error:
            _log.warning("what other processes do could not be looked at: %s", error)
            look_again_at = loop.time() + poll_seconds
