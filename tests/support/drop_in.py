"""The same request to the simulated Ollama directly and through the service, and what of two replies must be equal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiohttp

STREAMING = {
    "/api/generate": {"model": "tiny1", "prompt": "tell me", "options": {"num_predict": 12}, "stream": True},
    "/api/chat": {
        "model": "tiny1",
        "messages": [{"role": "user", "content": "tell me"}],
        "options": {"num_predict": 12},
        "stream": True,
    },
    "/v1/chat/completions": {
        "model": "tiny1",
        "messages": [{"role": "user", "content": "tell me"}],
        "max_tokens": 12,
        "stream": True,
    },
    "/v1/completions": {"model": "tiny1", "prompt": "tell me", "max_tokens": 12, "stream": True},
    "/v1/responses": {"model": "tiny1", "input": "tell me", "max_output_tokens": 12, "stream": True},
    "/v1/messages": {
        "model": "tiny1",
        "messages": [{"role": "user", "content": "tell me"}],
        "max_tokens": 12,
        "stream": True,
    },
}
"""A request for a stream for each route that has one."""

EMBEDDING: dict[str, dict[str, Any]] = {
    "/api/embed": {"model": "embed", "input": ["one", "two"]},
    "/api/embeddings": {"model": "embed", "prompt": "one"},
    "/v1/embeddings": {"model": "embed", "input": "one"},
}

WHOLE = {path: {**body, "stream": False} for path, body in STREAMING.items()} | EMBEDDING

_ALTERED = (
    (re.compile(rb'"(created_at|expires_at|modified_at)":"[^"]*"'), rb'"\1":"TIME"'),
    (re.compile(rb'"(\w+_duration|created|created_at|completed_at)":\d+'), rb'"\1":0'),
    (re.compile(rb'"(chatcmpl|cmpl|resp|msg|call|req|rs|fc|toolu)[-_]\w+"'), rb'"\1-ID"'),
)


class Seen(NamedTuple):
    """What a client sees of a reply; ids and times are made alike."""

    status: int
    content_type: str | None
    body: bytes
    is_whole: bool
    """It ended as HTTP says that it should."""
    headers: Mapping[str, str]

    @property
    def comparable(self) -> tuple[int, str | None, bytes, bool]:
        return self[:4]


async def seen(
    session: aiohttp.ClientSession, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> Seen:
    """Send a request; a body that is not bytes is sent as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    received = bytearray()
    is_whole = True
    async with session.request(method, path, data=data, headers=headers, allow_redirects=False) as response:
        try:
            if method != "HEAD":
                async for piece in response.content.iter_any():
                    received += piece
        except (aiohttp.ClientPayloadError, ConnectionError):
            is_whole = False
        return Seen(
            response.status, response.headers.get("Content-Type"), alike(bytes(received)), is_whole, response.headers
        )


def alike(body: bytes) -> bytes:
    """The body without what differs from one request to the next."""
    for pattern, replacement in _ALTERED:
        body = pattern.sub(replacement, body)
    return body


def whole_part(path: str, body: bytes) -> bytes:
    """A body that broke off, up to the last whole line or event."""
    end = b"\n" if path.startswith("/api/") else b"\n\n"
    return body[: body.rfind(end) + len(end)] if end in body else b""


def frame_of(path: str, rest: bytes) -> Any:
    """The message of the error frame of this route; fails unless ``rest`` is exactly one."""
    if path.startswith("/api/"):
        assert rest.endswith(b"\n")
        return json.loads(rest)["error"]
    assert rest.endswith(b"\n\n")
    lines = rest.decode().removesuffix("\n\n").split("\n")
    data = json.loads(lines[-1].removeprefix("data: "))
    if path in ("/v1/messages", "/v1/responses"):
        assert lines[0] == "event: error"
        assert data["type"] == "error"
    return data["error"]["message"]
