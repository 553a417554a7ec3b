"""What waits to be sent to one client. It is bounded, and the latest change of a job replaces the one before.

A writer exists only while there is something to write, so that thousands of idle clients need no tasks. Each client
has its own, so that nobody waits for another's socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from service.api.http.json_replies import json_text
from service.api.live.job_shape import job_fields
from service.errors import ServiceError
from service.live.hub import JobChanged

_log = logging.getLogger(__name__)

_MOST_REPLIES = 100
"""Replies to a client's own messages. Beyond that many, its messages are not read until they are sent."""


class EventSource(Protocol):
    """Something whose messages are read when they can be sent, such as the feed of a job."""

    async def read(self) -> list[dict[str, Any]]: ...


class Outbox:
    """The messages for one client. ``send`` may take long; it raises ConnectionError when the client is gone."""

    __slots__ = ("_changes", "_figures", "_most", "_replies", "_room", "_send", "_sources", "_writer")

    def __init__(self, send: Callable[[str], Awaitable[None]], most: int) -> None:
        self._send = send
        self._most = most
        self._replies: deque[str] = deque()
        self._changes: dict[str, JobChanged] = {}
        self._figures: str | None = None
        self._sources: dict[EventSource, None] = {}
        self._writer: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def reply(self, message: dict[str, Any]) -> None:
        """Send a message in any case, and before everything else."""
        self._replies.append(json_text(message))
        self._begin()

    def change(self, event: JobChanged) -> None:
        """Send a job's new status. Of each job only the latest waits; too many jobs become one ``reset``."""
        if len(self._changes) >= self._most and event.job.id not in self._changes:
            self._changes.clear()
            self.reply({"type": "reset", "channel": "jobs"})
        self._changes[event.job.id] = event
        self._begin()

    def figures(self, text: str) -> None:
        """Send the latest figures, which are JSON."""
        self._figures = text
        self._begin()

    def ready(self, source: EventSource) -> None:
        """Read a source, which may have something."""
        self._sources[source] = None
        self._begin()

    def forget(self, source: EventSource) -> None:
        """Do not read a source any more."""
        self._sources.pop(source, None)

    def forget_changes(self) -> None:
        self._changes.clear()

    async def has_room(self) -> None:
        """Wait until a client that asks faster than it reads has read."""
        if len(self._replies) > _MOST_REPLIES and self._writer is not None:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def close(self) -> None:
        """Send nothing more."""
        if self._writer is not None:
            self._writer.cancel()

    def _begin(self) -> None:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._replies or self._changes or self._figures is not None or self._sources:
                await self._write_round()
        except ConnectionError:
            # Session.listen ends by it, too, and cleans up.
            self._replies.clear()
        finally:
            self._writer = None
            self._make_room()

    async def _write_round(self) -> None:
        """Send some messages of each kind, so that many of one kind do not hold up another."""
        while self._replies:
            await self._send(self._replies.popleft())
        self._make_room()
        for _ in range(len(self._changes)):
            if not self._changes:
                break
            event = self._changes.pop(next(iter(self._changes)))
            await self._send(rendered(event))
        if self._figures is not None:
            figures, self._figures = self._figures, None
            await self._send(figures)
        sources, self._sources = self._sources, {}
        for source in sources:
            for message in await _read(source):
                await self._send(json_text(message))

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def rendered(event: JobChanged) -> str:
    """The message of a status change, made once for all clients."""
    if event.text is None:
        event.text = json_text({"type": "job", **job_fields(event.job, event.position, event.estimated_start_seconds)})
    return event.text


async def _read(source: EventSource) -> list[dict[str, Any]]:
    try:
        return await source.read()
    except ServiceError as error:
        _log.warning("a followed job could not be read: %s", error)
        return [{"type": "error", "error": str(error)}]
