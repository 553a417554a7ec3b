"""A backend that costs nothing: bytes made before, for every request to generate or chat.

A stream has as many tokens as the request's ``num_predict`` says, 20 without it. All of them are one write; with
``--pause-ms`` each token is a write of its own, so many milliseconds after the one before (0: at once).
It knows the few routes that the service asks for at its start, and ``GET /answered``: how many answers it has given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import cast

from tests.bench.listening import announce, run, until_stopped

MODEL = "llama3.2:latest"
TOKENS = 20

_NUM_PREDICT = re.compile(rb'"num_predict": ?(\d+)')


def _whole(body: object) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b" % (
        len(data),
        data,
    )


SAID: dict[bytes, Callable[[str], dict[str, object]]] = {
    b"POST /api/generate": lambda text: {"response": text},
    b"POST /api/chat": lambda text: {"message": {"role": "assistant", "content": text}},
}


@cache
def stream(route: bytes, tokens: int) -> tuple[bytes, ...]:
    """As Ollama sends it: a line and an HTTP chunk for each token, then the line that ends it.

    The head comes with the first token, the end of the chunks with the last line.
    """
    said = SAID[route]
    about = {"model": MODEL, "created_at": "2026-01-01T12:00:00.000000Z"}
    end = {
        **said(""),
        "done": True,
        "done_reason": "stop",
        "total_duration": 1_000_000,
        "load_duration": 1_000,
        "prompt_eval_count": 26,
        "prompt_eval_duration": 1_000,
        "eval_count": tokens,
        "eval_duration": 1_000,
    }
    chunks = [_chunk({**about, **said(f" word{number}"), "done": False}) for number in range(tokens)]
    chunks.append(_chunk({**about, **end}) + b"0\r\n\r\n")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks[0], *chunks[1:]


def _chunk(line: dict[str, object]) -> bytes:
    data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


@cache
def _stream_in_one(route: bytes, tokens: int) -> bytes:
    return b"".join(stream(route, tokens))


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

    def __init__(self, pause_seconds: float | None) -> None:
        self._pause_seconds = pause_seconds
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
        route, body = self._received[: self._received.find(b" HTTP/")], self._received[head_end + 4 :]
        self._received = b""
        assert self._transport is not None
        if route in SAID:
            Answering.answered += 1
            self._answer(self._transport, route, body)
        elif route == b"GET /answered":
            self._transport.write(_whole(Answering.answered))
        else:
            self._transport.write(REPLIES.get(route, NOT_FOUND))

    def _answer(self, transport: asyncio.Transport, route: bytes, body: bytes) -> None:
        wanted = _NUM_PREDICT.search(body)
        tokens = int(wanted[1]) if wanted else TOKENS
        if self._pause_seconds is None:
            transport.write(_stream_in_one(route, tokens))
        else:
            _write_in_turns(transport, iter(stream(route, tokens)), self._pause_seconds)


def _write_in_turns(transport: asyncio.Transport, pieces: Iterator[bytes], pause_seconds: float) -> None:
    """Write one piece now and each further one in a later turn of the loop: uvloop sends those of one turn together."""
    piece = next(pieces, None)
    if piece is not None and not transport.is_closing():
        transport.write(piece)
        asyncio.get_running_loop().call_later(pause_seconds, _write_in_turns, transport, pieces, pause_seconds)


async def main() -> None:
    """Listen on the port that was given, or any."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--pause-ms", type=float)
    given = parser.parse_args()
    answering = partial(Answering, given.pause_ms if given.pause_ms is None else given.pause_ms / 1000)
    server = await asyncio.get_running_loop().create_server(answering, "127.0.0.1", given.port, backlog=1024)
    announce(server.sockets[0].getsockname()[1])
    await until_stopped()


if __name__ == "__main__":
    # Its speed is to be in nobody's way.
    run(main(), on_uvloop=True)
