"""Callers that wait for a reply, whether they are still there, and whether they take what they are sent.

aiohttp can only tell a handler that its client has left by cancelling it, in the middle of whatever it does. So one
task looks at all connections regularly, and a handler is told where it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from aiohttp import web

from service.cancel_scope import CancelScope
from service.tcp_keepalive import INTERVAL_SECONDS, has_vanished

_T = TypeVar("_T")

_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 600.0
"""A caller that reads nothing for so long is cut off, since what waits to be sent to it fills memory."""
_PATIENCE_WITH_MUCH_SECONDS = 60.0
"""The same of one for which much waits, and that takes less than :data:`_MUCH_BYTES` of it meanwhile."""
_MUCH_BYTES = 1024 * 1024


class WaitingCaller:
    """One caller. ``leave`` is called when its connection is gone, and again at each look until it is removed."""

    __slots__ = ("_taken_bytes", "leave", "request", "slow_seconds", "waiting_bytes", "writing_since")

    def __init__(self, request: web.Request, leave: Callable[[], object]) -> None:
        self.request = request
        self.leave = leave
        self.writing_since: float | None = None
        """When the write that is under way began (the loop's time); None when none is."""
        self.waiting_bytes = 0
        """What waits to be sent with it, and behind it."""
        self.slow_seconds = 0.0
        """How long it was written to before that write, since it last had taken much."""
        self._taken_bytes = 0

    async def write(self, response: web.StreamResponse, data: bytes, behind: int = 0) -> None:
        """Write to the caller, for whom so many bytes are there ``behind`` these, and wait until it has read most of
        it. Raises ConnectionError when it is gone.
        """
        self.writing_since = begun = asyncio.get_running_loop().time()
        self.waiting_bytes = len(data) + behind
        await response.write(data)
        self.writing_since = None
        if self.waiting_bytes > _MUCH_BYTES:
            self._note_taken(len(data), begun)

    async def end(self, response: web.StreamResponse, data: bytes) -> None:
        """Write the last of it. Raises ConnectionError."""
        self.writing_since = asyncio.get_running_loop().time()
        self.waiting_bytes = len(data)
        await response.write_eof(data)
        self.writing_since = None

    def _note_taken(self, taken_bytes: int, begun: float) -> None:
        self._taken_bytes += taken_bytes
        self.slow_seconds += asyncio.get_running_loop().time() - begun
        if self._taken_bytes >= _MUCH_BYTES:
            self._taken_bytes, self.slow_seconds = 0, 0.0


class Callers:
    """Everybody who waits for a reply."""

    def __init__(self) -> None:
        self._waiting: set[WaitingCaller] = set()
        self.patience_seconds = _PATIENCE_SECONDS
        self.patience_with_much_seconds = _PATIENCE_WITH_MUCH_SECONDS

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, waiting: WaitingCaller) -> None:
        """Look at this caller's connection from now on."""
        self._waiting.add(waiting)

    def remove(self, waiting: WaitingCaller) -> None:
        """Look at it no longer: it has its reply, or is gone."""
        self._waiting.discard(waiting)

    @contextmanager
    def waiting(self, request: web.Request, leave: Callable[[], object]) -> Iterator[WaitingCaller]:
        """Look at a caller's connection for as long as this lasts."""
        caller = WaitingCaller(request, leave)
        self.add(caller)
        try:
            yield caller
        finally:
            self.remove(caller)

    @contextmanager
    def sending(self, request: web.Request, waiting_bytes: int) -> Iterator[None]:
        """Cut a caller off that does not take what is written to it while this lasts."""
        with self.waiting(request, nobody) as caller:
            caller.writing_since = asyncio.get_running_loop().time()
            caller.waiting_bytes = waiting_bytes
            yield

    async def keep_looking(self) -> None:
        """Look at the connections regularly; never returns."""
        loop = asyncio.get_running_loop()
        asks_at = loop.time() + INTERVAL_SECONDS
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = loop.time()
            is_asking = now >= asks_at
            if is_asking:
                asks_at = now + INTERVAL_SECONDS
            for waiting in tuple(self._waiting):
                self._look(waiting, now, is_asking=is_asking)

    def _look(self, waiting: WaitingCaller, now: float, *, is_asking: bool) -> None:
        request = waiting.request
        if is_gone(request):
            waiting.leave()
        elif self._is_too_slow(waiting, now) or (is_asking and has_vanished(request.get_extra_info("socket"))):
            cut_off(request)

    def _is_too_slow(self, waiting: WaitingCaller, now: float) -> bool:
        if waiting.writing_since is None:
            return False
        seconds = now - waiting.writing_since
        if waiting.waiting_bytes > _MUCH_BYTES:
            return waiting.slow_seconds + seconds > self.patience_with_much_seconds
        return seconds > self.patience_seconds


async def while_there(request: web.Request, work: Awaitable[_T]) -> _T:
    """What the work gives, which is given up when the caller leaves. Raises ConnectionResetError then."""
    with CancelScope() as scope, request.app[CALLERS].waiting(request, scope):
        return await work
    raise ConnectionResetError("the caller has left")


def is_gone(request: web.Request) -> bool:
    """Whether the connection on which the request came is closed."""
    transport = request.transport
    return transport is None or transport.is_closing()


def hang_up(request: web.Request) -> None:
    """Close the connection after what was written, without the body's end, so that the client sees a failure."""
    if request.transport is not None:
        request.transport.close()


def cut_off(request: web.Request) -> None:
    """Close the connection at once; what was not sent yet is dropped."""
    if request.transport is not None:
        request.transport.abort()


def nobody() -> None:
    """Nobody need be told that the caller is gone: what is written to it next fails."""


CALLERS = web.AppKey("callers", Callers)
