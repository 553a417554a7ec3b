"""A job's events as server-sent events (HTML standard, 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from service.api.http.json_replies import json_text
from service.api.http.raw_replies import stream_reply
from service.api.live.feeds import JobFeed
from service.api.live.long_poll import wait_for
from service.errors import InvalidRequestError
from service.live.outputs import Position

_LOOK_SECONDS = 1.0
"""How often it is looked whether the client is still there while there is nothing to send."""
_STALLED_SECONDS = 60.0
"""A client that reads nothing for so long is cut off; it may come back with its position."""

_HEADERS = (("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-store"))
_NAMES = {"job": "status"}


def position_of(request: web.Request) -> Position | None:
    """Where the client left off: Last-Event-ID, or ``from`` or ``last_event_id`` in the query.

    Raises InvalidRequestError.
    """
    # The header goes first: a browser that reconnects sends it, together with the query of its first request.
    places = {"Last-Event-ID": request.headers.get("Last-Event-ID")}
    places |= {name: request.query.get(name) for name in ("last_event_id", "from")}
    name, given = next(((name, text) for name, text in places.items() if text), ("", None))
    if given is None:
        return None
    position = Position.parse(given)
    if position is None:
        raise InvalidRequestError(f"{name}: must be the id of an event, such as 1.250 (got {given[:60]!r})", name)
    return position


class EventStream:
    """One reply that goes on until the job is done, the client is gone or the service stops."""

    def __init__(self, request: web.Request, heartbeat_seconds: float) -> None:
        self._request = request
        self._heartbeat_seconds = heartbeat_seconds
        self._woken = asyncio.Event()
        self._is_over = False
        self.wake = self._woken.set
        self.response = stream_reply(request, 200, _HEADERS)

    def leave(self) -> None:
        """End the reply soon: the service stops."""
        self._is_over = True
        self.wake()

    async def relay(self, feed: JobFeed) -> None:
        """Send what the feed has, until the job is done or the client is gone."""
        await self.response.prepare(self._request)
        silent_since = asyncio.get_running_loop().time()
        while not self._is_over and self._request.transport is not None:
            messages = await feed.read()
            if messages:
                text = "".join(map(_event, messages))
                if feed.is_done:
                    # The job's end and the reply's end go out in one write.
                    await self._send(text, self.response.write_eof)
                    return
                await self._send(text, self.response.write)
            elif await wait_for(self._woken, min(_LOOK_SECONDS, self._heartbeat_seconds)):
                continue
            elif asyncio.get_running_loop().time() - silent_since >= self._heartbeat_seconds:
                await self._send(": still here\n\n", self.response.write)
            else:
                continue
            silent_since = asyncio.get_running_loop().time()

    async def _send(self, text: str, write: Callable[[bytes], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(_STALLED_SECONDS):
                await write(text.encode("utf-8", "replace"))
        except (ConnectionError, TimeoutError):
            self._is_over = True
            if self._request.transport is not None:
                self._request.transport.abort()


def _event(message: dict[str, Any]) -> str:
    kind = message.pop("type")
    match kind:
        case "output":
            identity = f"id: {message['position']}\n"
        case "restart":
            identity = f"id: {Position(message['attempt'], 0)}\n"
        case _:
            identity = ""
    return f"event: {_NAMES.get(kind, kind)}\n{identity}data: {json_text(message)}\n\n"
