"""The time limits of a call, with a loop whose clock and timers the test turns by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp import ClientResponse

from service.backend.watch import Limits, Watch


class HandTurnedLoop:
    """Timers fire when the test says so: on time, or late as after a pause of the process."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> HandTurnedLoop:
        self.timers.append((when, callback))
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def turn(self, seconds: float) -> None:
        """Let time pass, with every timer on time."""
        end = self.now + seconds
        while self.timers and min(self.timers)[0] <= end:
            self.now, callback = self.timers.pop()
            callback()
        self.now = end

    def jump(self, seconds: float) -> None:
        """A pause: time passes, and the timers that were due in it fire once."""
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        for timer in due:
            self.timers.remove(timer)
            timer[1]()


class Body:
    """As much of a reply as a watch looks at."""

    def __init__(self) -> None:
        self.content = self
        self.total_bytes = 0
        self.is_closed = False
        self.error: BaseException | None = None

    def set_exception(self, error: BaseException) -> None:
        self.error = error

    def close(self) -> None:
        self.is_closed = True


def watched(limits: Limits) -> tuple[HandTurnedLoop, Watch, Body]:
    """A watch whose reply has just shown its headers."""
    loop, body = HandTurnedLoop(), Body()
    watch = Watch(cast(asyncio.AbstractEventLoop, loop), limits, "box")
    watch.has_headers(cast(ClientResponse, body))
    return loop, watch, body


def code_of(watch: Watch) -> str | None:
    return None if watch.error is None else watch.error.code


LIMITS = Limits(first_byte=100.0, stall=10.0, attempt=1000.0)


async def test_there_is_one_timer_at_a_time() -> None:
    loop, watch, body = watched(LIMITS)
    for _ in range(100):
        watch.begin_wait(body.total_bytes)
        loop.turn(5.0)
        body.total_bytes += 1
        watch.end_wait()
        assert len(loop.timers) == 1
    assert code_of(watch) is None
    watch.stop()
    assert loop.timers == []


async def test_a_stall_is_counted_from_the_last_piece() -> None:
    loop, watch, body = watched(LIMITS)
    watch.begin_wait(body.total_bytes)
    loop.turn(9.0)
    watch.end_wait()
    watch.begin_wait(body.total_bytes)
    loop.turn(9.9)
    assert code_of(watch) is None
    loop.turn(0.5)
    assert code_of(watch) == "stalled"
    assert (body.error, body.is_closed) == (watch.error, True)


async def test_a_slow_reader_is_not_a_stalled_backend() -> None:
    loop, watch, body = watched(LIMITS)
    watch.begin_wait(body.total_bytes)
    watch.end_wait()
    loop.turn(900.0)
    watch.begin_wait(body.total_bytes)
    loop.turn(9.9)
    assert code_of(watch) is None
    loop.turn(0.5)
    assert code_of(watch) == "stalled"


async def test_after_a_pause_arrived_bytes_are_looked_for() -> None:
    loop, watch, body = watched(LIMITS)
    watch.begin_wait(body.total_bytes)
    loop.jump(60.0)
    assert code_of(watch) is None
    body.total_bytes += 1
    loop.turn(9.0)
    assert code_of(watch) is None


async def test_a_pause_between_the_looks_gives_another_look() -> None:
    loop, watch, body = watched(LIMITS)
    watch.begin_wait(body.total_bytes)
    loop.jump(60.0)
    loop.jump(60.0)
    assert code_of(watch) is None
    loop.turn(1.0)
    assert code_of(watch) == "stalled"


async def test_the_first_byte_and_the_ceiling_have_limits_of_their_own() -> None:
    cases: list[tuple[Limits, float, str]] = [
        (LIMITS, 100.0, "first_byte_timeout"),
        (Limits(first_byte=None, stall=10.0, attempt=50.0), 50.0, "attempt_timeout"),
        (Limits(first_byte=100.0, stall=10.0, attempt=50.0), 50.0, "attempt_timeout"),
        (LIMITS.for_whole_reply(), 1000.0, "attempt_timeout"),
    ]
    for limits, seconds, code in cases:
        loop = HandTurnedLoop()

        async def call(limits: Limits = limits, loop: Any = loop) -> str | None:
            watch = Watch(loop, limits, "box")
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                return code_of(watch)
            return None

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        loop.turn(seconds - 0.1)
        assert task.cancelling() == 0
        loop.turn(0.5)
        assert await task == code
