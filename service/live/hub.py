"""Who wants to hear of what, by channel. Publishing never waits: a subscriber takes an event into its own bounded
keeping.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from service.job import Job

JOBS = "jobs"
"""The channel of every job's changes."""
ENDED = "ended"
"""The channel of every job's end."""


def job_channel(job_id: str) -> str:
    """The channel of one job's changes."""
    return f"job:{job_id}"


class JobChanged:
    """A job has a new status, and its place in the queue where that is known at once, which is then exact; ``text``
    keeps what it was rendered to, once for all subscribers.
    """

    __slots__ = ("estimated_start_seconds", "job", "position", "text")

    def __init__(self, job: Job, position: int | None = None, estimated_start_seconds: float | None = None) -> None:
        self.job = job
        self.position = position
        self.estimated_start_seconds = estimated_start_seconds
        self.text: str | None = None


class Subscriber(Protocol):
    """Takes events; must return at once and never raise."""

    def receive(self, event: JobChanged) -> None: ...


_NOBODY: Mapping[Subscriber, None] = {}


class Hub:
    """Channels and their subscribers."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[Subscriber, None]] = {}

    def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        self._channels.setdefault(channel, {})[subscriber] = None

    def unsubscribe(self, channel: str, subscriber: Subscriber) -> None:
        subscribers = self._channels.get(channel)
        if subscribers is not None:
            subscribers.pop(subscriber, None)
            if not subscribers:
                del self._channels[channel]

    def publish(self, job: Job, position: int | None = None, estimated_start_seconds: float | None = None) -> None:
        """Tell those who follow this job and those who follow all."""
        channels = self._channels
        own, every = channels.get(job_channel(job.id), _NOBODY), channels.get(JOBS, _NOBODY)
        ended = channels.get(ENDED, _NOBODY) if job.is_final else _NOBODY
        if not (own or every or ended):
            return
        event = JobChanged(job, position, estimated_start_seconds)
        # Whoever hears of it may leave, or come; and is told once.
        for subscriber in {**own, **every, **ended}:
            subscriber.receive(event)

    def replace(self, job: Job) -> None:
        """Tell the same people of the row of a job that ended before: they hold, and show, no other."""
        own, every = self._channels.get(job_channel(job.id), _NOBODY), self._channels.get(JOBS, _NOBODY)
        if own or every:
            event = JobChanged(job)
            for subscriber in {**own, **every}:
                subscriber.receive(event)


def _any_job(_job: Job) -> bool:
    return True


class Listening:
    """Listen first and look then: within it, the last change of each job is kept, so that one who asks how jobs stand
    can tell afterwards what has happened meanwhile and is in no snapshot.

    ``wake`` is called at each change; only jobs that it ``wants`` are kept.
    """

    __slots__ = ("_channel", "_hub", "_wake", "_wants", "changes")

    def __init__(
        self,
        hub: Hub,
        channel: str,
        *,
        wake: Callable[[], None] | None = None,
        wants: Callable[[Job], bool] = _any_job,
    ) -> None:
        self._hub = hub
        self._channel = channel
        self._wake = wake
        self._wants = wants
        self.changes: dict[str, JobChanged] = {}
        """By the job's id."""

    def __enter__(self) -> Listening:
        self._hub.subscribe(self._channel, self)
        return self

    def __exit__(self, *_error: object) -> None:
        self._hub.unsubscribe(self._channel, self)

    def receive(self, event: JobChanged) -> None:
        if self._wants(event.job):
            self.changes[event.job.id] = event
            if self._wake is not None:
                self._wake()
