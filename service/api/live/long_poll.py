"""Waiting for a job to change: by its events, and by regular looks in case an event was missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.api.long_lived import LongLived
from service.jobs import Jobs, View
from service.live.hub import Hub, Listening, job_channel


class LongPoll:
    """What a long poll needs; ``look_again_seconds`` is the pause between two looks when no event comes."""

    def __init__(self, jobs: Jobs, hub: Hub, long_lived: LongLived, look_again_seconds: float) -> None:
        self._jobs = jobs
        self._hub = hub
        self._long_lived = long_lived
        self._look_again_seconds = look_again_seconds

    async def until_changed(self, job_id: str, known: str, seconds: float) -> View:
        """The job as soon as its status is final or not ``known``; else as it is after ``seconds``, or at a stop."""
        return await self._until(job_id, lambda status: status != known, seconds)

    async def until_final(self, job_id: str, seconds: float) -> View:
        """The job as soon as it is final; else as it is after ``seconds``, or at a stop."""
        return await self._until(job_id, lambda _status: False, seconds)

    async def _until(self, job_id: str, is_awaited: Callable[[str], bool], seconds: float) -> View:
        news = asyncio.Event()
        with Listening(self._hub, job_channel(job_id), wake=news.set), self._long_lived.seated(news.set):
            return await self._look(news, job_id, is_awaited, seconds)

    async def _look(self, news: asyncio.Event, job_id: str, is_awaited: Callable[[str], bool], seconds: float) -> View:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            view = await self._jobs.views.view(job_id)
            left = end - loop.time()
            if view.job.is_final or is_awaited(view.job.status) or left <= 0 or self._long_lived.is_dismissed:
                return view
            await wait_for(news, min(left, self._look_again_seconds))


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait at most so long for ``event``, and clear it. True when it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
