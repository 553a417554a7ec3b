"""Whether another job may wait. If not, how fast jobs have ended lately says when its caller should come again.

The queue is shared: with fair shares an owner may have waiting at most half of what the others leave free, so that the
second owner finds half of it, the third a third, and nobody fills it alone. Its last tenth is kept for those of whom
nothing waits, and for admins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from service.clock import Clock
from service.errors import (
    LimitReachedError,
    QueueFullError,
)
from service.job import Status
from service.metrics.rates import RateMeter
from service.queue.gauges import Gauges


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What the core refuses to exceed: the jobs and bytes that wait, and the bytes of one output."""

    max_queued: int
    max_queued_bytes: int
    max_output_bytes: int
    max_queued_per_owner: int | None = None
    """None: a fair share; 0: no limit of its own."""


_UNKNOWN_SECONDS = 30.0
"""When nothing has ended in the last minute."""
_LONGEST_SECONDS = 3600.0
_KEPT_PART = 10
"""One of so many parts of the room is kept for those of whom nothing waits."""


class _Room(NamedTuple):
    """Jobs, or their bytes: how many may wait, how many do, and how many of them are one owner's."""

    what: str
    most: int
    waiting: int
    own: int

    def beyond_share(self, more: int) -> float:
        """By how much ``more`` of the owner's would be too many for its fair share; not above 0 where they fit."""
        if not self.own:
            return 0.0
        return self.own + more - (self.most - (self.waiting - self.own)) / 2

    def beyond_open(self, more: int) -> int:
        """By how much ``more`` of an owner that waits already would reach into what is kept."""
        return self.waiting + more - (self.most - self.most // _KEPT_PART) if self.own else 0


class Capacity:
    """The room in the queue."""

    def __init__(self, gauges: Gauges, clock: Clock) -> None:
        self._gauges = gauges
        self._clock = clock
        self._finished = RateMeter()

    def finished(self, now: int) -> None:
        """A job has ended, which makes room for another."""
        self._finished.add(now)

    def check(self, limits: QueueLimits, size: int, owner: str, *, is_admins: bool = False) -> None:
        """Raises QueueFullError when the queue has no room for a request of ``size`` bytes, and LimitReachedError when
        the owner has too many jobs or bytes in it. An admin has no share that could be full.
        """
        gauges = self._gauges
        queued = gauges.total(Status.QUEUED)
        if queued >= limits.max_queued:
            raise QueueFullError(
                f"the queue is full: {limits.max_queued} jobs wait; try again later",
                self._seconds_until_ended(queued - limits.max_queued + 1),
            )
        if gauges.queued_bytes + size > limits.max_queued_bytes:
            excess = gauges.queued_bytes + size - limits.max_queued_bytes
            raise QueueFullError(
                f"the queue is full: requests of {limits.max_queued_bytes} bytes may wait; try again later",
                self._seconds_until_ended(self._jobs_of(excess)),
            )
        if limits.max_queued_per_owner is not None:
            self._check_own(limits.max_queued_per_owner, owner)
        elif not is_admins:
            own = gauges.total(Status.QUEUED, None, owner)
            self._check_share(_Room("jobs", limits.max_queued, queued, own), 1)
            own_bytes = gauges.queued_bytes_of(owner)
            self._check_share(_Room("bytes", limits.max_queued_bytes, gauges.queued_bytes, own_bytes), size)

    def _check_own(self, most: int, owner: str) -> None:
        own = self._gauges.total(Status.QUEUED, None, owner)
        if most and own >= most:
            raise LimitReachedError(
                f"{most} of your jobs wait already, which is the most that may; try again later",
                self._seconds_until_ended(self._gauges.queued_owners * (own - most + 1)),
            )

    def _check_share(self, room: _Room, more: int) -> None:
        beyond = room.beyond_share(more)
        if beyond > 0:
            raise LimitReachedError(
                f"your share of the queue is full: {room.own} {room.what} of yours wait, and an owner may have half "
                f"of what others leave free ({room.most} in all, {room.waiting - room.own} taken by them); try later",
                self._seconds_until_ended(self._gauges.queued_owners * self._jobs_in(room, beyond)),
            )
        beyond = room.beyond_open(more)
        if beyond > 0:
            raise LimitReachedError(
                f"the queue is nearly full: {room.waiting} of {room.most} {room.what} are taken, and the last tenth is "
                f"kept for those of whom nothing waits; {room.own} of them are yours; try again later",
                self._seconds_until_ended(self._jobs_in(room, beyond)),
            )

    def _jobs_in(self, room: _Room, beyond: float) -> float:
        return beyond if room.what == "jobs" else self._jobs_of(beyond)

    def _jobs_of(self, size: float) -> float:
        """How many of the jobs that wait have so many bytes."""
        return size * self._gauges.total(Status.QUEUED) / max(1, self._gauges.queued_bytes)

    def _seconds_until_ended(self, jobs: float) -> float:
        rate = self._finished.per_second(self._clock.now_ms())
        return min(_LONGEST_SECONDS, max(1.0, jobs / rate)) if rate else _UNKNOWN_SECONDS
