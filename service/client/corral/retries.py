"""When a call is tried again, and after how long."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState

from corral.call import Call
from corral.circuit import Circuit
from corral.errors import (
    CallTimeoutError,
    CircuitOpenError,
    ConnectionFailedError,
    CorralError,
    ResponseError,
    StreamBrokenError,
)
from corral.logs import log
from corral.settings import Settings

T = TypeVar("T")

_TRIED_AGAIN = frozenset({429, 500, 502, 503, 504})
_LONGEST_WAIT_SECONDS = 60.0
"""A server that wants to be left alone for longer is not waited for."""


def is_worth_retrying(error: BaseException) -> bool:
    """Whether the same request may end better next time. Nothing that was handed out already is asked for again."""
    if isinstance(error, ResponseError):
        return (
            error.status_code in _TRIED_AGAIN
            and not error.is_final
            and (error.retry_after_seconds or 0.0) <= _LONGEST_WAIT_SECONDS
        )
    if isinstance(error, StreamBrokenError):
        return not error.text
    return isinstance(error, ConnectionFailedError | CallTimeoutError)


@dataclass
class Time:
    """The clock and the sleep, which tests replace."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Retries:
    """Tries again what failed in passing, after a while that grows."""

    def __init__(self, settings: Settings, circuit: Circuit, own_time: Time) -> None:
        self._settings = settings
        self._circuit = circuit
        self._time = own_time
        self._chance = random.Random()

    async def run(self, call: Call, attempt: Callable[[], Awaitable[T]], *, is_guarded: bool = True) -> T:
        """The result of the first attempt that brings one; else the last error is raised.

        A call may consist of several requests; all but its first count as attempts only when they are repeated.
        ``is_guarded``: attempts ask the circuit for leave, so that none follows once it has opened.
        """
        last: list[CorralError] = []
        is_refused = False

        async def tried() -> T:
            nonlocal is_refused
            counted = int(call.attempts == 0 or bool(last))
            call.attempts += counted
            try:
                return await attempt()
            except CircuitOpenError:
                call.attempts -= counted
                is_refused = True
                if not last:
                    raise
                raise last[-1] from last[-1].__cause__
            except CorralError as error:
                last.append(error)
                raise

        def is_to_be_repeated(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome is not None and state.outcome.failed else None
            is_hopeless = is_refused or (is_guarded and self._circuit.is_open)
            return error is not None and is_worth_retrying(error) and not is_hopeless

        def wait(state: RetryCallState) -> float:
            error, seconds = last[-1], self.delay(state.attempt_number, last[-1])
            log.debug("[%s] attempt %d failed, again in %.2f s: %s", call.request_id, call.attempts, seconds, error)
            return seconds

        try:
            return await tried()
        except CorralError as error:
            # Most calls need no second attempt, and what counts them takes half a millisecond.
            first: CorralError | None = error

        async def tried_again() -> T:
            nonlocal first
            if first is not None:
                error, first = first, None
                raise error
            return await tried()

        retrying = AsyncRetrying(
            sleep=self._time.sleep,
            stop=lambda state: state.attempt_number > self._settings.max_retries,
            wait=wait,
            retry=is_to_be_repeated,
            reraise=True,
        )
        result: T = await retrying(tried_again)
        return result

    def delay(self, number: int, error: CorralError | None = None) -> float:
        """How long to wait after that many attempts: by chance, so that many callers do not come back together."""
        settings = self._settings
        try:
            longest = settings.initial_retry_delay * settings.backoff_factor ** (number - 1)
        except OverflowError:
            longest = math.inf
        longest = min(longest, settings.max_retry_delay)
        seconds = self._chance.uniform(longest / 2, longest)
        asked = error.retry_after_seconds if isinstance(error, ResponseError) else None
        return max(seconds, asked or 0.0)

    async def pause(self, number: int) -> None:
        """Wait as before the next attempt."""
        await self._time.sleep(self.delay(number))
