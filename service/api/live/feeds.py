"""What a follower of one job is told: status changes, output, restarts, the end, and its place in the queue.

Event streams and the websocket read the same feeds. Places in the queue change without events, so one round a second
looks at the followed jobs that do not run here; it also finds changes whose event was missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from service.api.live.job_shape import event_fields, view_fields
from service.errors import NotFoundError, ServiceError
from service.job import Job, Status
from service.jobs import Jobs, View
from service.live.following import StatusChanged
from service.live.hub import Hub, JobChanged, Listening, job_channel
from service.live.outputs import Position

_log = logging.getLogger(__name__)

_ROUND_SECONDS = 1.0
_MOST_LOOKS = 500
"""At most so many jobs are looked at in one round; when more are followed, they take turns."""


class JobFeed:
    """One reader of one job; ``wake`` is called whenever :meth:`read` may have something."""

    def __init__(self, jobs: Jobs, view: View, position: Position | None, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._told = view
        self._has_moved = False
        self._follower = jobs.ledger.follow(view.job, position, wake)

    @property
    def job(self) -> Job:
        """The job as last heard of."""
        return self._follower.job

    @property
    def is_done(self) -> bool:
        return self._follower.is_done

    async def read(self) -> list[dict[str, Any]]:
        """What is new, as messages with a ``type``; empty when nothing is."""
        messages: list[dict[str, Any]] = []
        has_moved, self._has_moved = self._has_moved, False
        for event in await self._follower.read():
            if isinstance(event, StatusChanged):
                has_moved = False
                messages.append(self._status_of(event.job))
            else:
                messages.append({**event_fields(event, self.job.id)})
        if has_moved and self.job.status == Status.QUEUED:
            messages.append(self._status_of(self.job))
        return messages

    def hear(self, event: JobChanged) -> None:
        """Take in a change that came before the feed itself listened."""
        self._follower.receive(event)

    def look(self, view: View) -> None:
        """Take in what is stored, where it is news or the place has changed."""
        known, found = self.job, view.job
        if found.stage >= known.stage and _state(found) != _state(known):
            self._follower.receive(JobChanged(found))
        if view.position is not None and _is_other_place(view, self._told):
            self._has_moved = True
            self._told = view
            self._wake()

    def lose(self) -> None:
        """Another process has purged the job, which it had cancelled."""
        job = self.job._replace(status=str(Status.CANCELLED), error_code="cancelled", error_message=None, preview="")
        self._follower.receive(JobChanged(job))

    def close(self) -> None:
        self._follower.close()

    def _status_of(self, job: Job) -> dict[str, Any]:
        self._told = self._told._replace(job=job) if job.status == Status.QUEUED else View(job, None)
        return {"type": "job", **view_fields(self._told)}


class Feeds:
    """All feeds that are open."""

    def __init__(self, jobs: Jobs, hub: Hub) -> None:
        self._jobs = jobs
        self._hub = hub
        self._open: dict[str, dict[JobFeed, None]] = {}

    async def open(self, job_id: str, position: Position | None, wake: Callable[[], None]) -> JobFeed:
        """Follow a job from ``position``, or from the beginning; to be closed. Raises NotFoundError."""
        with Listening(self._hub, job_channel(job_id)) as heard:
            feed = JobFeed(self._jobs, await self._jobs.views.view(job_id), position, wake)
        self._open.setdefault(job_id, {})[feed] = None
        for event in heard.changes.values():
            feed.hear(event)
        return feed

    def close(self, feed: JobFeed) -> None:
        """Stop following."""
        feed.close()
        feeds = self._open.get(feed.job.id, {})
        feeds.pop(feed, None)
        if not feeds:
            self._open.pop(feed.job.id, None)

    @asynccontextmanager
    async def opened(self, job_id: str, position: Position | None, wake: Callable[[], None]) -> AsyncIterator[JobFeed]:
        feed = await self.open(job_id, position, wake)
        try:
            yield feed
        finally:
            self.close(feed)

    async def keep_looking(self) -> None:
        """Go round once a second; never returns."""
        while True:
            await asyncio.sleep(_ROUND_SECONDS)
            await asyncio.gather(*(self._look(job_id) for job_id in self._next_in_turn()))

    def _next_in_turn(self) -> list[str]:
        chosen = []
        for job_id in list(self._open)[:_MOST_LOOKS]:
            feeds = self._open[job_id] = self._open.pop(job_id)
            job = next(iter(feeds)).job
            if not job.is_final and self._jobs.ledger.output_of(job.id) is None:
                chosen.append(job_id)
        return chosen

    async def _look(self, job_id: str) -> None:
        try:
            view = await self._jobs.views.view(job_id)
        except NotFoundError:
            for feed in tuple(self._open.get(job_id, ())):
                feed.lose()
            return
        except ServiceError as error:
            _log.debug("a followed job could not be looked at: %s", error)
            return
        for feed in tuple(self._open.get(job_id, ())):
            feed.look(view)


FEEDS = web.AppKey("feeds", Feeds)


def _is_other_place(view: View, told: View) -> bool:
    return (
        view.position != told.position
        or view.is_exact != told.is_exact
        or _is_other_time(view.estimated_start_seconds, told.estimated_start_seconds)
    )


def _is_other_time(estimate: float | None, told: float | None) -> bool:
    """Whether an estimate has changed enough for a message: by more than two seconds, and by more than a quarter."""
    if estimate is None or told is None:
        return estimate is not told
    return abs(estimate - told) > max(2.0, told / 4)


def _state(job: Job) -> tuple[str, int, int, int | None]:
    return (job.status, job.attempt, job.failures, job.not_before)
