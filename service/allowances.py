"""How many requests each limited key has left: at most so many in any hour.

Counted in slots of a second, so that a key costs no more memory than the seconds of an hour. What was asked before a
restart is counted from the jobs that it made, and so is what other processes were asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from service.clock import Clock
from service.errors import LimitReachedError
from service.key import Key

WINDOW_SECONDS = 3600


class Allowance(NamedTuple):
    """What a key may still ask for; the rest is in seconds from now."""

    limit: int
    remaining: int
    full_again_seconds: int
    """Until nothing counts any more, when nothing more is asked."""


class _Window:
    """The requests of one key in the last hour, by the second in which they came."""

    __slots__ = ("count", "others", "slots")

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}
        self.others: dict[int, int] = {}
        """Those that came to other processes."""
        self.count = 0

    def forget_before(self, second: int) -> None:
        for slots in (self.slots, self.others):
            while slots and (oldest := next(iter(slots))) < second:
                self.count -= slots.pop(oldest)

    def add(self, second: int) -> None:
        self.slots[second] = self.slots.get(second, 0) + 1
        self.count += 1

    def take_back(self, second: int) -> None:
        if self.slots.get(second):
            self.slots[second] -= 1
            self.count -= 1

    def oldest(self) -> int | None:
        return min((second for slots in (self.slots, self.others) for second in slots), default=None)

    def newest(self) -> int | None:
        return max((second for slots in (self.slots, self.others) for second in slots), default=None)


class Allowances:
    """The windows of all keys that have a limit."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def take(self, key: Key) -> int:
        """Count one request and say in which second. Raises LimitReachedError when the key has none left."""
        second = self._clock.now_ms() // 1000
        limit = key.requests_per_hour
        if limit is None:
            return second
        window = self._window(key.id, second)
        if window.count >= limit:
            oldest = window.oldest()
            wait = WINDOW_SECONDS if oldest is None else oldest + WINDOW_SECONDS + 1 - second
            raise LimitReachedError(
                f"this API key may make {limit} requests an hour, and it has; try again in {wait} s", float(wait)
            )
        window.add(second)
        return second

    def take_back(self, key: Key, second: int) -> None:
        """What was counted in that second came to nothing for reasons of ours."""
        if key.requests_per_hour is not None:
            self._window(key.id, self._clock.now_ms() // 1000).take_back(second)

    def left(self, key: Key) -> Allowance | None:
        """How the key stands; None for one without a limit."""
        if key.requests_per_hour is None:
            return None
        second = self._clock.now_ms() // 1000
        window = self._window(key.id, second)
        newest = window.newest() if window.count else None
        full_again = 0 if newest is None else newest + WINDOW_SECONDS + 1 - second
        return Allowance(key.requests_per_hour, max(0, key.requests_per_hour - window.count), full_again)

    def set(self, key_id: str, seconds: Mapping[int, int]) -> None:
        """Begin with what the key asked for before this process began: requests by second since the epoch."""
        window = self._windows[key_id] = _Window()
        window.slots = dict(sorted(seconds.items()))
        window.count = sum(seconds.values())

    def _window(self, key_id: str, second: int) -> _Window:
        window = self._windows.get(key_id)
        if window is None:
            window = self._windows[key_id] = _Window()
        window.forget_before(second - WINDOW_SECONDS)
        return window
