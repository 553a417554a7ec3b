"""Callers that wait for a reply, and whether they are still there.

aiohttp does not tell a handler that its client has left unless it cancels the handler, in the middle of whatever it
does. So the connections are looked at, and a handler hears of it where it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from service.relay import Relay

_LOOK_SECONDS = 0.25


class Callers:
    """Everybody who waits for a reply."""

    def __init__(self) -> None:
        self._waiting: dict[Relay, web.Request] = {}

    @contextmanager
    def waiting(self, request: web.Request, relay: Relay) -> Iterator[None]:
        """Have the relay poked when the caller's connection is gone."""
        self._waiting[relay] = request
        try:
            yield
        finally:
            self._waiting.pop(relay, None)

    async def keep_looking(self) -> None:
        """Look at the connections regularly; never returns."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for relay, request in tuple(self._waiting.items()):
                if is_gone(request):
                    relay.poke()


def is_gone(request: web.Request) -> bool:
    """Whether the connection on which the request came is closed."""
    transport = request.transport
    return transport is None or transport.is_closing()


CALLERS = web.AppKey("callers", Callers)
