"""Whether another job may wait. If not, how fast jobs have ended lately says when its caller should come again."""

from __future__ import annotations

from dataclasses import dataclass

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
    max_queued_per_owner: int = 0
    """0: none of its own."""


_UNKNOWN_SECONDS = 30.0
"""When nothing has ended in the last minute."""
_LONGEST_SECONDS = 3600.0


class Capacity:
    """The room in the queue."""

    def __init__(self, gauges: Gauges, clock: Clock) -> None:
        self._gauges = gauges
        self._clock = clock
        self._finished = RateMeter()

    def finished(self, now: int) -> None:
        """A job has ended, which makes room for another."""
        self._finished.add(now)

    def check(self, limits: QueueLimits, size: int, owner: str) -> None:
        """Raises QueueFullError when the queue has no room for a request of ``size`` bytes, and LimitReachedError when
        the owner has too many jobs in it.
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
                self._seconds_until_ended(excess * queued / max(1, gauges.queued_bytes)),
            )
        if not limits.max_queued_per_owner:
            return
        own = gauges.total(Status.QUEUED, None, owner)
        if own >= limits.max_queued_per_owner:
            sharing = sum(len(owners) for owners in gauges.waiting.values())
            raise LimitReachedError(
                f"{limits.max_queued_per_owner} of your jobs wait already, which is the most that may; try again later",
                self._seconds_until_ended(max(1, sharing) * (own - limits.max_queued_per_owner + 1)),
            )

    def _seconds_until_ended(self, jobs: float) -> float:
        rate = self._finished.per_second(self._clock.now_ms())
        return min(_LONGEST_SECONDS, max(1.0, jobs / rate)) if rate else _UNKNOWN_SECONDS
