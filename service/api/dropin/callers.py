"""Callers that wait for a reply, and whether they are still there.

aiohttp does not tell a handler that its client has left unless it cancels the handler, in the middle of whatever it
does. So the connections are looked at, and a handler hears of it where it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 600.0
"""A caller that takes nothing of what is written to it for so long is cut off: what waits for it fills memory."""


class WaitingCaller:
    """One caller. ``leave`` is called, again and again, when its connection is gone."""

    __slots__ = ("leave", "request", "writing_since")

    def __init__(self, request: web.Request, leave: Callable[[], object]) -> None:
        self.request = request
        self.leave = leave
        self.writing_since: float | None = None
        """Since when a write to it has been under way (the loop's time)."""

    async def write(self, response: web.StreamResponse, data: bytes) -> None:
        """Write; returns when the caller has taken most of it. Raises ConnectionError when it is gone."""
        self.writing_since = asyncio.get_running_loop().time()
        await response.write(data)
        self.writing_since = None

    async def end(self, response: web.StreamResponse, data: bytes) -> None:
        """Write the last of it. Raises ConnectionError."""
        self.writing_since = asyncio.get_running_loop().time()
        await response.write_eof(data)
        self.writing_since = None


class Callers:
    """Everybody who waits for a reply."""

    def __init__(self) -> None:
        self._waiting: set[WaitingCaller] = set()

    def add(self, waiting: WaitingCaller) -> None:
        """Look after it from now on."""
        self._waiting.add(waiting)

    def remove(self, waiting: WaitingCaller) -> None:
        """It has its reply, or is gone."""
        self._waiting.discard(waiting)

    @contextmanager
    def waiting(self, request: web.Request, leave: Callable[[], object]) -> Iterator[WaitingCaller]:
        """Look after a caller for as long as this lasts."""
        caller = WaitingCaller(request, leave)
        self.add(caller)
        try:
            yield caller
        finally:
            self.remove(caller)

    async def keep_looking(self) -> None:
        """Look at the connections regularly; never returns."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            too_slow = loop.time() - _PATIENCE_SECONDS
            for waiting in tuple(self._waiting):
                if is_gone(waiting.request):
                    waiting.leave()
                elif waiting.writing_since is not None and waiting.writing_since < too_slow:
                    cut_off(waiting.request)


def is_gone(request: web.Request) -> bool:
    """Whether the connection on which the request came is closed."""
    transport = request.transport
    return transport is None or transport.is_closing()


def hang_up(request: web.Request) -> None:
    """Close the connection behind what was written, without the end that HTTP asks for."""
    if request.transport is not None:
        request.transport.close()


def cut_off(request: web.Request) -> None:
    """Close the connection and forget what was not sent yet."""
    if request.transport is not None:
        request.transport.abort()


CALLERS = web.AppKey("callers", Callers)
