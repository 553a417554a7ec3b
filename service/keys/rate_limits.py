"""How many requests each limited key has left: at most so many in any hour.

Requests are counted in slots of a second, so that a key needs no more memory than an hour has seconds. The requests
that came before a restart, or to other processes, are known from the jobs that they became.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import NamedTuple

from service.clock import Clock
from service.errors import LimitReachedError, ServiceError
from service.key import Key
from service.keys.keyring import Keyring
from service.store.keys import KeyStore

_log = logging.getLogger(__name__)

_WINDOW_SECONDS = 3600
_SETTLED_SECONDS = 10
"""The job of a request that is so old is stored by now, whichever process it came to."""


class RateLimit(NamedTuple):
    """How many requests a key has left."""

    limit: int
    remaining: int
    full_again_seconds: int
    """In how many seconds no request counts any more, if none is added."""


class _Window:
    """The requests of one key in the last hour, by the second in which they came, oldest first."""

    __slots__ = ("count", "slots")

    def __init__(self, slots: Mapping[int, int]) -> None:
        self.slots = dict(sorted(slots.items()))
        self.count = sum(slots.values())

    def forget_before(self, second: int) -> None:
        while self.slots and (oldest := next(iter(self.slots))) < second:
            self.count -= self.slots.pop(oldest)

    def add(self, second: int) -> None:
        self.slots[second] = self.slots.get(second, 0) + 1
        self.count += 1

    def remove(self, second: int) -> None:
        if second in self.slots:
            self.slots[second] -= 1
            self.count -= 1
            if self.slots[second] == 0:
                del self.slots[second]


class RateLimits:
    """The windows of all keys that have a limit."""

    def __init__(self, store: KeyStore, keys: Keyring, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def take(self, key: Key) -> int | None:
        """Count one request and say in which second, for :meth:`give_back`; None for a key without a limit.

        Raises LimitReachedError when the key has none left.
        """
        limit = key.requests_per_hour
        if limit is None:
            return None
        window, second = self._window(key)
        if window.count >= limit:
            wait = next(iter(window.slots)) + _WINDOW_SECONDS - second if window.slots else _WINDOW_SECONDS
            raise LimitReachedError(
                f"this API key may make {limit} requests an hour, and has made them; try again in {wait} s", float(wait)
            )
        window.add(second)
        return second

    def give_back(self, key: Key, second: int) -> None:
        """Take back a request that was counted in that second: it became no job."""
        window, _ = self._window(key)
        window.remove(second)

    def left(self, key: Key) -> RateLimit | None:
        """What the key has left; None for a key without a limit."""
        limit = key.requests_per_hour
        if limit is None:
            return None
        window, second = self._window(key)
        newest = next(reversed(window.slots), None)
        full_again = 0 if newest is None else newest + _WINDOW_SECONDS - second
        return RateLimit(limit, max(0, limit - window.count), full_again)

    async def recall(self) -> None:
        """Count anew from the jobs of the last hour. No count of the last seconds falls: jobs may not be stored yet."""
        second = self._clock.now_ms() // 1000
        for key in self._keys.listed():
            if key.requests_per_hour is None or not key.is_active:
                continue
            stored = await self._store.requests_by_second(key.id, (second - _WINDOW_SECONDS) * 1000)
            known = self._windows.get(key.id)
            recent = (
                {at: number for at, number in known.slots.items() if at > second - _SETTLED_SECONDS} if known else {}
            )
            seconds = {at: max(stored.get(at, 0), recent.get(at, 0)) for at in {*stored, *recent}}
            self._windows[key.id] = _Window(seconds)

    async def keep_recalling(self, seconds: float) -> None:
        """Count the requests to other processes, too; never returns."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.recall()
            except ServiceError as error:
                _log.warning("the requests of other processes could not be counted: %s", error)

    def _window(self, key: Key) -> tuple[_Window, int]:
        second = self._clock.now_ms() // 1000
        window = self._windows.get(key.id)
        if window is None:
            window = self._windows[key.id] = _Window({})
        window.forget_before(second - _WINDOW_SECONDS + 1)
        return window, second
