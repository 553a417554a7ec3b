"""A client that sends exactly the bytes that a test writes down, and reads whatever is answered."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from tests.support.running import PATIENCE_SECONDS

AT_ONCE = 8
"""Clients where much is sent."""
_RECEIVE_BYTES = 1 << 16

Sent = TypeVar("Sent")


class Answer(NamedTuple):
    """A whole reply. Its headers' names are in lower case; of equal ones the last is there."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    version: str = "HTTP/1.1"

    @property
    def is_kept(self) -> bool:
        """Whether the connection may be used again."""
        return self.version == "HTTP/1.1" and self.headers.get("connection", "").lower() != "close"


def request_head(method: str, path: str, *lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """The head of a request, without the empty line at its end. Its host is localhost, unless a line names another."""
    first = b"%s %s %s" % (method.encode(), path.encode("latin-1"), version)
    host = () if any(line.startswith(b"Host:") for line in lines) else (b"Host: localhost",)
    return b"\r\n".join([first, *host, *lines])


def request_of(method: str, path: str, body: bytes, *lines: bytes) -> bytes:
    """A request as any client sends it."""
    length = b"Content-Length: %d" % len(body)
    return request_head(method, path, length, *lines) + b"\r\n\r\n" + body


def header_lines(headers: Mapping[str, str]) -> tuple[bytes, ...]:
    """Headers as lines of a head."""
    return tuple(f"{name}: {value}".encode() for name, value in headers.items())


def read_answer(data: bytes, method: str, *, is_over: bool) -> Answer | None:
    """The reply that ``data`` begins with; None as long as it is not whole. ``is_over``: nothing more will come.

    Raises ValueError for what is no HTTP.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status = first.split(" ")[:2]
    # It may repeat the version that it was asked in.
    if not version.startswith("HTTP/"):
        raise ValueError(f"no HTTP: {data[:200]!r}")
    if 100 <= int(status) < 200 and status != "101":
        return read_answer(rest, method, is_over=is_over)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = _body(rest, headers, is_over=is_over) if method != "HEAD" and status not in ("101", "204", "304") else b""
    return None if body is None else Answer(int(status), headers, body, version)


def _body(rest: bytes, headers: Mapping[str, str], *, is_over: bool) -> bytes | None:
    if "content-length" in headers:
        length = int(headers["content-length"])
        return rest[:length] if len(rest) >= length else None
    if headers.get("transfer-encoding") == "chunked":
        return _unchunked(rest)
    return rest if is_over else None


def _unchunked(rest: bytes) -> bytes | None:
    body, at = b"", 0
    while (end := rest.find(b"\r\n", at)) >= 0:
        size = int(rest[at:end], 16)
        if size == 0:
            return body if rest.find(b"\r\n", end + 2) >= 0 else None
        body += rest[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
    return None


class Client:
    """One connection after the other, each kept as long as the service keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def exchange(self, request: bytes, method: str, *, is_cut: bool = False) -> Answer | None:
        """Send a request; the reply, or None when the service closed without one.

        ``is_cut``: nothing more follows, and the service is told so.
        """
        async with asyncio.timeout(PATIENCE_SECONDS):
            if self._reader is None or self._writer is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writer.write(request)
            if is_cut:
                self._writer.write_eof()
            answer = await self._answer(self._reader, method)
        if is_cut or answer is None or not answer.is_kept:
            self.close()
        return answer

    def close(self) -> None:
        """Give the connection up; the next request opens another."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _answer(self, reader: asyncio.StreamReader, method: str) -> Answer | None:
        data = b""
        while True:
            try:
                received = await reader.read(_RECEIVE_BYTES)
            except ConnectionError:
                received = b""
            data += received
            answer = read_answer(data, method, is_over=not received)
            if answer is not None or not received:
                return answer


async def in_parallel(port: int, send: Callable[[Client, Sent], Awaitable[None]], what: Iterable[Sent]) -> None:
    """Send all of it, by a few clients at a time."""
    left = iter(what)

    async def go() -> None:
        client = Client(port)
        try:
            for one in left:
                await send(client, one)
        finally:
            client.close()

    async with asyncio.TaskGroup() as going:
        for _ in range(AT_ONCE):
            going.create_task(go())


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A connection that blocks."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield opened


def exchange_blocking(port: int, pieces: Iterable[bytes], method: str, *, is_cut: bool = False) -> Answer | None:
    """Send a request over a connection of its own, from a thread; each piece is a packet of its own. The reply, or None
    when the service closed without one.
    """
    with connected(port) as opened:
        try:
            for piece in pieces:
                opened.sendall(piece)
            if is_cut:
                opened.shutdown(socket.SHUT_WR)
        except ConnectionError:
            # It was answered, and closed, before all was sent.
            pass
        return received_answer(opened, method)


def received_answer(opened: socket.socket, method: str) -> Answer | None:
    """The reply that comes over a connection; None when it was closed without one."""
    data = b""
    while True:
        try:
            received = opened.recv(_RECEIVE_BYTES)
        except ConnectionError:
            received = b""
        data += received
        answer = read_answer(data, method, is_over=not received)
        if answer is not None or not received:
            return answer
