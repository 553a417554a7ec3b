"""A load generator of raw sockets and epoll: requests are bytes made before, replies are looked at no more than needed,
so that it costs a fraction of any server that it is pointed at.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Sequence
from itertools import cycle
from typing import Any, NamedTuple

_SILENCE_SECONDS = 30.0
_RECEIVE_BYTES = 1 << 16
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class LoadError(Exception):
    """A server refused, closed a connection or fell silent: what it was asked cannot be measured."""


def request_bytes(method: str, path: str, body: Any = None) -> bytes:
    """One whole HTTP/1.1 request, with a JSON body unless that is None."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    data = json.dumps(body).encode()
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def requests_per_second(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float, warm_up_seconds: float = 0.3
) -> float:
    """Replies per second while every connection always has one request under way; the requests go round."""
    with _Connections(port, requests, connections) as opened:
        opened.exchange_until(time.perf_counter() + warm_up_seconds)
        replies_before, begun = opened.replies, time.perf_counter()
        opened.exchange_until(begun + seconds)
        return (opened.replies - replies_before) / (time.perf_counter() - begun)


def send_all(port: int, requests: Sequence[bytes], *, connections: int) -> float:
    """Send each request once over so many connections; the seconds until the last reply is whole."""
    begun = time.perf_counter()
    with _Connections(port, requests, connections, most=len(requests)) as opened:
        opened.exchange_until(begun + 600)
        if opened.replies < len(requests):
            raise LoadError(f"only {opened.replies} of {len(requests)} replies came")
    return time.perf_counter() - begun


class _Connections:
    def __init__(self, port: int, requests: Sequence[bytes], connections: int, most: int | None = None) -> None:
        self.replies = 0
        self._requests = cycle(requests)
        self._left = most if most is not None else 1 << 60
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._parts: dict[int, bytes] = {}
        for _ in range(min(connections, self._left)):
            opened = socket.create_connection(("127.0.0.1", port), timeout=_SILENCE_SECONDS)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[opened.fileno()] = opened
            self._parts[opened.fileno()] = b""
            self._epoll.register(opened.fileno(), select.EPOLLIN)

    def __enter__(self) -> _Connections:
        for opened in self._sockets.values():
            self._send_next(opened)
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()
        for opened in self._sockets.values():
            opened.close()

    def exchange_until(self, end: float) -> None:
        """Keep every connection busy until then, or until no request is left and every reply is here."""
        sockets, parts = self._sockets, self._parts
        waiting_replies = self._left + self.replies + len(sockets)
        while self.replies < waiting_replies and time.perf_counter() < end:
            ready = self._epoll.poll(_SILENCE_SECONDS)
            if not ready:
                raise LoadError(f"the server was silent for {_SILENCE_SECONDS:g} s")
            for number, _ in ready:
                data = sockets[number].recv(_RECEIVE_BYTES)
                if not data:
                    raise LoadError("the server closed a connection")
                if parts[number]:
                    data = parts[number] + data
                if not _is_whole(data):
                    parts[number] = _without_middle(data)
                    continue
                parts[number] = b""
                if data[9:10] != b"2":
                    raise LoadError(f"the server answered {data[:300]!r}")
                self.replies += 1
                if self._left:
                    self._send_next(sockets[number])

    def _send_next(self, opened: socket.socket) -> None:
        self._left -= 1
        opened.sendall(next(self._requests))


def _is_whole(reply: bytes) -> bool:
    head_end = reply.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    name = reply.find(b"Content-Length: ", 0, head_end)
    if name < 0:
        return reply.endswith(_LAST_CHUNK)
    return len(reply) >= head_end + 4 + int(reply[name + 16 : reply.find(b"\r\n", name)])


def _without_middle(reply: bytes) -> bytes:
    """What is still needed of a reply that is not whole: of a body in chunks, only how it ends so far.

    A stream of many tokens that is kept whole would be copied again with each of them.
    """
    body = reply.find(b"\r\n\r\n") + 4
    if body < 4 or reply.find(b"Content-Length: ", 0, body) >= 0:
        return reply
    return reply[:body] + reply[max(body, len(reply) - len(_LAST_CHUNK) + 1) :]


class Timed(NamedTuple):
    """Milliseconds from a request to the first and to the last byte of its reply's body."""

    first: float
    last: float


class Connection:
    """One keep-alive connection, one exchange at a time, for measuring how long each takes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_SILENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(self, request: bytes) -> bytes:
        """Send a request and return the whole reply, head and all. Raises LoadError for any status but 2xx."""
        self._socket.sendall(request)
        reply = b""
        while not _is_whole(reply):
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise LoadError("the server closed the connection")
            reply += data
        if reply[9:10] != b"2":
            raise LoadError(f"the server answered {reply[:300]!r}")
        return reply

    def timed(self, request: bytes) -> Timed:
        """Send a request; when the first byte of the reply's body came, and when the last. Raises LoadError."""
        begun = time.perf_counter()
        first = 0.0
        self._socket.sendall(request)
        reply = b""
        while not _is_whole(reply):
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise LoadError("the server closed the connection")
            reply += data
            if not first and len(reply) > reply.find(b"\r\n\r\n") + 4 > 3:
                first = time.perf_counter() - begun
        if reply[9:10] != b"2":
            raise LoadError(f"the server answered {reply[:300]!r}")
        return Timed(first * 1000, (time.perf_counter() - begun) * 1000)

    def json(self, request: bytes) -> Any:
        """The JSON body of the reply."""
        return json.loads(self.exchange(request).partition(b"\r\n\r\n")[2])
