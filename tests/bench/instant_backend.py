"""A backend that costs nothing: bytes made before, 20 tokens in one write, for every request to generate or chat.

It knows the few routes that the service asks for at its start, and ``GET /answered``: how many answers it has given.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import cast

from tests.bench.listening import announce, run, until_stopped

MODEL = "llama3.2:latest"
TOKENS = 20


def _whole(body: object) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b" % (
        len(data),
        data,
    )


def _stream(said: Callable[[str], dict[str, object]]) -> bytes:
    """As Ollama sends it: a line and an HTTP chunk for each token."""
    about = {"model": MODEL, "created_at": "2026-01-01T12:00:00.000000Z"}
    lines: list[dict[str, object]] = [{**about, **said(f" word{n}"), "done": False} for n in range(TOKENS)]
    end = {
        **said(""),
        "done": True,
        "done_reason": "stop",
        "total_duration": 1_000_000,
        "load_duration": 1_000,
        "prompt_eval_count": 26,
        "prompt_eval_duration": 1_000,
        "eval_count": TOKENS,
        "eval_duration": 1_000,
    }
    chunks = b""
    for line in (*lines, {**about, **end}):
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        chunks += b"%x\r\n%b\r\n" % (len(data), data)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\n\r\n"


ANSWERS = {
    b"POST /api/generate": _stream(lambda text: {"response": text}),
    b"POST /api/chat": _stream(lambda text: {"message": {"role": "assistant", "content": text}}),
}
_LISTED = {
    "name": MODEL,
    "model": MODEL,
    "modified_at": "2026-01-01T12:00:00Z",
    "size": 2_000_000_000,
    "digest": "0" * 64,
    "details": {"family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"},
}
_LOADED = {**_LISTED, "expires_at": "2036-01-01T12:00:00Z", "size_vram": 2_000_000_000}
REPLIES = {
    b"GET /api/version": _whole({"version": "0.24.0"}),
    b"GET /api/tags": _whole({"models": [_LISTED]}),
    b"GET /api/ps": _whole({"models": [_LOADED]}),
}
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Answering(asyncio.Protocol):
    """One connection."""

    answered = 0

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._received[:head_end].lower()
        name = head.find(b"content-length: ")
        length = int(head[name + 16 :].partition(b"\r\n")[0]) if name >= 0 else 0
        if len(self._received) < head_end + 4 + length:
            return
        first = self._received[: self._received.find(b" HTTP/")]
        self._received = b""
        assert self._transport is not None
        if first in ANSWERS:
            Answering.answered += 1
            self._transport.write(ANSWERS[first])
        elif first == b"GET /answered":
            self._transport.write(_whole(Answering.answered))
        else:
            self._transport.write(REPLIES.get(first, NOT_FOUND))


async def main() -> None:
    """Listen on the port that was given, or any."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port, backlog=1024)
    announce(server.sockets[0].getsockname()[1])
    await until_stopped()


if __name__ == "__main__":
    # Its speed is to be in nobody's way.
    run(main(), on_uvloop=True)
