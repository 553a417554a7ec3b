"""One job followed on a websocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.api.live.feeds import Feeds, JobFeed
from service.job import Job
from service.live.hub import JobChanged
from service.live.outputs import Position


class JobSubscription:
    """A job's feed, whose first message is the snapshot. ``ready`` is called when there may be something to read, and
    ``ended`` when nothing more will come; ``sent`` is told the job when all of it is on its way.
    """

    def __init__(
        self,
        feeds: Feeds,
        job_id: str,
        ready: Callable[[JobSubscription], None],
        ended: Callable[[JobSubscription], None],
        sent: Callable[[Job], None],
    ) -> None:
        self._feeds = feeds
        self._ready = ready
        self._ended = ended
        self._sent = sent
        self._feed: JobFeed | None = None
        self._has_begun = False
        self.job_id = job_id

    async def open(self, position: Position | None) -> Job:
        """Follow the job from ``position``, or from the beginning; the job as it stands. Raises NotFoundError."""
        self._feed = await self._feeds.open(self.job_id, position, self._wake)
        self._wake()
        return self._feed.job

    async def read(self) -> list[dict[str, Any]]:
        """What is new, as messages."""
        feed = self._feed
        if feed is None:
            return []
        messages = await feed.read()
        if messages and not self._has_begun:
            self._has_begun = True
            fields = messages[0]
            del fields["type"]
            messages[0] = {"type": "subscribed", "channel": "job", "id": self.job_id, "job": fields}
        if feed.is_done:
            self._sent(feed.job)
            self._ended(self)
        return messages

    def latest(self) -> JobChanged | None:
        """The job as last heard of."""
        return JobChanged(self._feed.job) if self._feed is not None else None

    def close(self) -> None:
        if self._feed is not None:
            self._feeds.close(self._feed)
            self._feed = None

    def _wake(self) -> None:
        self._ready(self)
