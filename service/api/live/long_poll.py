"""Waiting for a job to change: by its events, and by regular looks in case an event was missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from service.api.access.auth import AUTH
from service.api.access.caller import CALLER
from service.api.context import CONFIG, HUB, JOBS, LONG_LIVED
from service.api.http.callers import CALLERS, is_gone
from service.jobs import View
from service.live.hub import Listening, job_channel


class LongPoll:
    """Waits for the caller of a request. It ends when that caller has left, too: nobody looks for those who no longer
    wait.
    """

    def __init__(self, request: web.Request) -> None:
        app = self._app = request.app
        self._request = request
        self._jobs = app[JOBS]
        self._long_lived = app[LONG_LIVED]
        self._auth = app[AUTH]
        self._key = request[CALLER].key
        self._look_again_seconds = app[CONFIG].database.poll_interval_seconds
        """The pause between two looks when no event comes."""

    async def until_changed(self, job_id: str, known: str, seconds: float) -> View:
        """The job as soon as its status is final or not ``known``; else as it is after ``seconds``, at a stop, or
        when its caller has left. Raises UnauthenticatedError when the caller's key has ended meanwhile.
        """
        return await self._until(job_id, lambda status: status != known, seconds)

    async def until_final(self, job_id: str, seconds: float) -> View:
        """The job as soon as it is final; else as it is after ``seconds``, at a stop, or when its caller has left.
        Raises UnauthenticatedError likewise.
        """
        return await self._until(job_id, lambda _status: False, seconds)

    async def _until(self, job_id: str, is_awaited: Callable[[str], bool], seconds: float) -> View:
        news = asyncio.Event()
        with (
            Listening(self._app[HUB], job_channel(job_id), wake=news.set),
            self._long_lived.seated(news.set, lambda: self._key),
            self._app[CALLERS].waiting(self._request, news.set),
        ):
            return await self._look(news, job_id, is_awaited, seconds)

    async def _look(self, news: asyncio.Event, job_id: str, is_awaited: Callable[[str], bool], seconds: float) -> View:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            view = await self._jobs.views.view(job_id)
            self._auth.require_good(self._key)
            left = end - loop.time()
            if view.job.is_final or is_awaited(view.job.status) or left <= 0 or self._is_left_alone:
                return view
            await wait_for(news, min(left, self._look_again_seconds))

    @property
    def _is_left_alone(self) -> bool:
        """Whether the service stops, or the caller has left."""
        return self._long_lived.is_dismissed or is_gone(self._request)


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait at most so long for ``event``, and clear it. True when it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
