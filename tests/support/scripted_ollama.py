"""The service in front of an Ollama that answers one call after the other with what a test has written down."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.backends import until_answering
from tests.support.raw_server import END, Exchange, chunk, raw_server, whole
from tests.support.running import RunningService, service_in_process

MODEL = "llama3.2:latest"
_LISTS: dict[str, Any] = {
    "/api/version": {"version": "0.40.0"},
    "/api/tags": {"models": [{"name": MODEL, "model": MODEL}]},
    "/api/ps": {"models": []},
    "/api/show": {},
}


@dataclass
class Script:
    """What the calls that are queued are answered with; the last reply is given again and again."""

    service: RunningService
    replies: Sequence[bytes]
    given: list[str] = field(default_factory=list)
    """The paths that were asked for."""
    bodies: list[bytes] = field(default_factory=list)
    """What was sent to them."""


def stream(*pieces: bytes, content_type: str = "application/x-ndjson") -> bytes:
    """A reply of status 200 in chunks, which ends as HTTP says."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(chunk(piece) for piece in pieces) + END


def events(*pieces: bytes) -> bytes:
    """A stream of server-sent events."""
    return stream(*pieces, content_type="text/event-stream")


def refused(status: int, message: str) -> bytes:
    """An error with a status, in Ollama's own shape."""
    return whole(json.dumps({"error": message}).encode(), status=f"{status} x")


@asynccontextmanager
async def scripted(*replies: bytes, **options: Any) -> AsyncIterator[Script]:
    """A service whose retries do not wait. ``options`` are settings, with ``__`` for the dot."""
    given: list[str] = []
    bodies: list[bytes] = []

    async def serve(exchange: Exchange) -> None:
        if exchange.path in _LISTS:
            await exchange.send(whole(json.dumps(_LISTS[exchange.path]).encode()))
            return
        given.append(exchange.path)
        bodies.append(exchange.body)
        await exchange.send(replies[min(len(given), len(replies)) - 1])

    async with raw_server(serve) as ollama:
        settings = {
            "backends": [{"name": "scripted", "url": ollama.url}],
            "retry.initial_seconds": 0.001,
            "retry.cap_seconds": 0.001,
            **{name.replace("__", "."): value for name, value in options.items()},
        }
        async with service_in_process(settings) as service:
            await until_answering(service, 1)
            yield Script(service, replies, given, bodies)
