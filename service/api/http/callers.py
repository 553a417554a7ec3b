"""Callers that wait for a reply, whether they are still there, and whether they take what they are sent.

aiohttp can only tell a handler that its client has left by cancelling it, in the middle of whatever it does. So one
task looks at all connections regularly, and a handler is told where it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from service.tcp_keepalive import INTERVAL_SECONDS, has_vanished

_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 600.0
"""A caller that reads nothing for so long is cut off, since what waits to be sent to it fills memory."""
_PATIENCE_WITH_MUCH_SECONDS = 60.0
"""The same of one for which much waits."""
_MUCH_BYTES = 1024 * 1024


class WaitingCaller:
    """One caller. ``leave`` is called when its connection is gone, and again at each look until it is removed."""

    __slots__ = ("leave", "request", "waiting_bytes", "writing_since")

    def __init__(self, request: web.Request, leave: Callable[[], object]) -> None:
        self.request = request
        self.leave = leave
        self.writing_since: float | None = None
        """When the write that is under way began (the loop's time); None when none is."""
        self.waiting_bytes = 0
        """What waits to be sent with it, and behind it."""

    async def write(self, response: web.StreamResponse, data: bytes, behind: int = 0) -> None:
        """Write to the caller, for whom so many bytes are there ``behind`` these, and wait until it has read most of
        it. Raises ConnectionError when it is gone.
        """
        self.writing_since = asyncio.get_running_loop().time()
        self.waiting_bytes = len(data) + behind
        await response.write(data)
        self.writing_since = None

    async def end(self, response: web.StreamResponse, data: bytes) -> None:
        """Write the last of it. Raises ConnectionError."""
        self.writing_since = asyncio.get_running_loop().time()
        self.waiting_bytes = len(data)
        await response.write_eof(data)
        self.writing_since = None


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
        elif (waiting.writing_since is not None and now - waiting.writing_since > self._patience(waiting)) or (
            is_asking and has_vanished(request.get_extra_info("socket"))
        ):
            cut_off(request)

    def _patience(self, waiting: WaitingCaller) -> float:
        has_much = waiting.waiting_bytes > _MUCH_BYTES
        return self.patience_with_much_seconds if has_much else self.patience_seconds


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
