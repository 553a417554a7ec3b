"""Waiting out what passes: a full queue, a rate limit, a service that is away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from corral.errors import (
    CallTimeoutError,
    CircuitOpenError,
    ConnectionFailedError,
    CorralError,
    RateLimitError,
    ResponseError,
    ServerError,
)

T = TypeVar("T")

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 30.0
_EARLY_SECONDS = 0.5
"""Between two tries at least, also where something has changed meanwhile."""
_MOST_TRIES = 4
"""Of a request at which the server itself fails: the next lines may do better."""
_AWAY = (502, 504)
_BUSY = 503


def what_passes(error: CorralError) -> str | None:
    """What is waited for after this error, in words; None where waiting helps nobody."""
    if isinstance(error, ResponseError) and error.is_final:
        return None
    if isinstance(error, RateLimitError):
        return f"a limit of this key: {error.message}"
    if isinstance(error, ServerError) and error.status_code == _BUSY:
        return f"the service is busy: {error.message}"
    if isinstance(error, ServerError) and error.status_code in _AWAY:
        return f"the service is away: {error.message}"
    if isinstance(error, ConnectionFailedError | CallTimeoutError | CircuitOpenError):
        return f"the service is away: {error}"
    return None


class Pace:
    """Lets requests through, and holds all of them while the server wants to be left alone."""

    def __init__(self) -> None:
        self.waits_for: str | None = None
        """In words; None while requests go through."""
        self._until = self._held_at = 0.0
        self._woken = asyncio.Event()
        self._troubles = 0
        self._chance = random.Random()

    async def through(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result, once it comes. Raises what waiting does not help, and what the server fails at again."""
        failures = 0
        while True:
            await self._turn()
            begun = asyncio.get_running_loop().time()
            try:
                result = await attempt()
            except CorralError as error:
                words = what_passes(error)
                if words is None:
                    failures += 1
                    if not _is_worth_another_try(error) or failures == _MOST_TRIES:
                        self._is_well(begun)
                        raise
                    words = f"the service failed: {error}"
                self._hold(words, error.retry_after_seconds if isinstance(error, ResponseError) else None)
            else:
                self._is_well(begun)
                return result

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        # Others may have been told to wait longer meanwhile, and be woken.
        while (seconds := self._until - loop.time()) > 0:
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()

    def wake(self) -> None:
        """Something has changed that may have been waited for: try again soon, whatever the server has said."""
        loop = asyncio.get_running_loop()
        if self._until > loop.time():
            self._until = min(self._until, self._held_at + _EARLY_SECONDS)
            self._woken.set()

    def _hold(self, words: str, asked_seconds: float | None) -> None:
        loop = asyncio.get_running_loop()
        if self._until <= loop.time():
            # Those that were on their way together count once.
            self._troubles += 1
        longest = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2 ** min(self._troubles, 10))
        seconds = max(self._chance.uniform(longest / 2, longest), asked_seconds or 0.0)
        self._until = max(self._until, loop.time() + seconds)
        self._held_at = loop.time()
        self.waits_for = words

    def _is_well(self, begun: float) -> None:
        """A request that was begun at this moment went through. One from before the last trouble says nothing new."""
        if begun < self._held_at:
            return
        self._troubles = 0
        self.waits_for = None


def _is_worth_another_try(error: CorralError) -> bool:
    return isinstance(error, ServerError) and not error.is_final
