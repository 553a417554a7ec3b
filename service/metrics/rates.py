"""How much happens in a second, measured over the last minute."""

from __future__ import annotations

from collections import deque

WINDOW_MS = 60_000
_BUCKET_MS = 5_000


class RateMeter:
    """A sliding sum in a bounded number of buckets. Times are milliseconds that never go back."""

    __slots__ = ("_amount", "_begun", "_buckets", "_first")

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, float]] = deque()
        self._first: int | None = None
        # The last bucket, which is still being filled.
        self._begun = -_BUCKET_MS
        self._amount = 0.0

    def add(self, now: int, amount: float = 1.0) -> None:
        """So much happened now."""
        if now - self._begun < _BUCKET_MS:
            self._amount += amount
            return
        if self._first is None:
            self._first = now
        else:
            self._buckets.append((self._begun, self._amount))
        self._begun = now - now % _BUCKET_MS
        self._amount = amount
        self._forget(now)

    def per_second(self, now: int) -> float:
        """The mean over the last minute, or since the first time when that is less long ago; 0.0 before it."""
        if self._first is None:
            return 0.0
        self._forget(now)
        # One event says nothing of a rate: the time is at least that of a bucket.
        seconds = min(WINDOW_MS, max(_BUCKET_MS, now - self._first)) / 1000
        latest = self._amount if self._begun > now - WINDOW_MS else 0.0
        return (sum(amount for _, amount in self._buckets) + latest) / seconds

    def _forget(self, now: int) -> None:
        while self._buckets and self._buckets[0][0] <= now - WINDOW_MS:
            self._buckets.popleft()
