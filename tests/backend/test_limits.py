"""The time limits of a call, with a loop whose clock and timers the test turns by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from service.backend.http.connection import Connection
from service.backend.http.deadlines import Deadlines, DeadlineWatch, silent_too_long
from service.backend.http.incoming import IncomingReply
from service.errors import BackendError


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


class Exchange:
    """As much of a connection as a watch looks at."""

    def __init__(self, *, has_head: bool = True) -> None:
        self.incoming = IncomingReply()
        self.incoming.has_head = has_head
        self.received_bytes = 0
        self.error: BackendError | None = None

    def fail(self, error: BackendError) -> None:
        self.error = error

    @property
    def code(self) -> str | None:
        return None if self.error is None else self.error.code


def watched(limits: Deadlines, *, has_head: bool = True) -> tuple[HandTurnedLoop, DeadlineWatch, Exchange]:
    """A watch whose reply has just shown its headers, unless it has none yet."""
    loop, exchange = HandTurnedLoop(), Exchange(has_head=has_head)
    watch = DeadlineWatch(cast(asyncio.AbstractEventLoop, loop), limits, "box", cast(Connection, exchange), loop.time())
    return loop, watch, exchange


LIMITS = Deadlines(first_byte=100.0, stall=10.0, attempt=1000.0)


async def test_there_is_one_timer_at_a_time() -> None:
    loop, watch, exchange = watched(LIMITS)
    for _ in range(100):
        watch.begin_wait()
        loop.turn(5.0)
        exchange.received_bytes += 1
        watch.end_wait()
        assert len(loop.timers) == 1
    assert exchange.code is None
    watch.stop()
    assert loop.timers == []


async def test_a_stall_is_counted_from_the_last_piece() -> None:
    loop, watch, exchange = watched(LIMITS)
    watch.begin_wait()
    loop.turn(9.0)
    watch.end_wait()
    watch.begin_wait()
    loop.turn(9.9)
    assert exchange.code is None
    loop.turn(0.5)
    assert exchange.code == "stalled"


async def test_a_slow_reader_is_not_a_stalled_backend() -> None:
    loop, watch, exchange = watched(LIMITS)
    watch.begin_wait()
    watch.end_wait()
    loop.turn(900.0)
    watch.begin_wait()
    loop.turn(9.9)
    assert exchange.code is None
    loop.turn(0.5)
    assert exchange.code == "stalled"


async def test_after_a_pause_arrived_bytes_are_looked_for() -> None:
    loop, watch, exchange = watched(LIMITS)
    watch.begin_wait()
    loop.jump(60.0)
    assert exchange.code is None
    exchange.received_bytes += 1
    loop.turn(9.0)
    assert exchange.code is None


async def test_a_pause_between_the_looks_gives_another_look() -> None:
    loop, watch, exchange = watched(LIMITS)
    watch.begin_wait()
    loop.jump(60.0)
    loop.jump(60.0)
    assert exchange.code is None
    loop.turn(1.0)
    assert exchange.code == "stalled"


async def test_bytes_that_bring_no_piece_put_a_stall_off_only_once() -> None:
    loop, watch, exchange = watched(LIMITS)
    watch.begin_wait()
    loop.turn(5.0)
    exchange.received_bytes += 4
    loop.turn(14.9)
    assert exchange.code is None
    loop.turn(1.0)
    assert exchange.code == "stalled"


async def test_the_first_byte_and_the_ceiling_have_limits_of_their_own() -> None:
    cases: list[tuple[Deadlines, float, str]] = [
        (LIMITS, 100.0, "first_byte_timeout"),
        (Deadlines(first_byte=None, stall=10.0, attempt=50.0), 50.0, "attempt_timeout"),
        (Deadlines(first_byte=100.0, stall=10.0, attempt=50.0), 50.0, "attempt_timeout"),
        (LIMITS.for_whole_reply(), 1000.0, "attempt_timeout"),
    ]
    for limits, seconds, code in cases:
        loop, _, exchange = watched(limits, has_head=False)
        loop.turn(seconds - 0.1)
        assert exchange.code is None
        loop.turn(0.5)
        assert exchange.code == code


async def test_a_stall_behind_a_late_head_is_noticed_in_its_own_time() -> None:
    loop, watch, exchange = watched(LIMITS, has_head=False)
    loop.turn(15.0)
    exchange.incoming.has_head = True
    watch.begin_wait()
    # Two looks at the most lie between the end of the limit and the one that finds it.
    loop.turn(20.5)
    assert exchange.code == "stalled"


class Patient:
    """A patience that the test sets."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.error: BackendError | None = None

    def due(self, now: float) -> float:
        return self.until

    def run_out(self) -> BackendError | None:
        if self.error is None:
            self.until = float("inf")
        return self.error


async def test_patience_decides_how_long_the_first_byte_may_take() -> None:
    loop, exchange = HandTurnedLoop(), Exchange(has_head=False)
    patience = Patient(loop.now + 30.0)
    as_loop, as_connection = cast(asyncio.AbstractEventLoop, loop), cast(Connection, exchange)
    DeadlineWatch(as_loop, LIMITS, "box", as_connection, loop.time(), patience)
    loop.turn(29.0)
    patience.until += 200.0
    loop.turn(200.0)
    assert exchange.code is None
    patience.error = silent_too_long("too long")
    loop.turn(2.0)
    assert exchange.code == "first_byte_timeout"


async def test_a_call_that_goes_on_when_its_patience_is_over_has_the_ceiling() -> None:
    loop, exchange = HandTurnedLoop(), Exchange(has_head=False)
    as_loop, as_connection = cast(asyncio.AbstractEventLoop, loop), cast(Connection, exchange)
    DeadlineWatch(as_loop, LIMITS.for_whole_reply(), "box", as_connection, loop.time(), Patient(loop.now + 30.0))
    loop.turn(999.9)
    assert exchange.code is None
    loop.turn(0.5)
    assert exchange.code == "attempt_timeout"
