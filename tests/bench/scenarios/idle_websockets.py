"""5,000 websockets that only listen: what each costs, and how soon one change of status has reached them all."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from functools import partial

from tests.bench.load import Connection, LoadError, request_bytes
from tests.bench.measuring import Bench
from tests.bench.processes import resident_bytes
from tests.bench.table import Figure, at_most
from tests.support.processes import running_service

WEBSOCKETS = 5_000
WANTED_KILOBYTES = 30
WANTED_SECONDS = 1.0

_SILENCE_SECONDS = 30.0
# As a browser asks, the offer to compress included.
_HANDSHAKE = (
    b"GET /api/v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
_SUBMIT = request_bytes("POST", "/api/v1/prompt", {"prompt": "Why is the sky blue?"})


async def measure(bench: Bench) -> list[Figure]:
    """Memory is the service's, as the kernel counts it; all of them follow the jobs."""
    with bench.new_folder() as folder:
        async with running_service(folder) as service:
            each, seconds = await asyncio.to_thread(partial(_listen, service.port, service.process.pid))
    return [
        at_most(f"memory of one of {WEBSOCKETS:,} idle websockets", each / 1000, WANTED_KILOBYTES, "kB"),
        at_most(
            f"from a submission until {WEBSOCKETS:,} websockets know of it", seconds, WANTED_SECONDS, "s",
            has_commit=True,
        ),
    ]  # fmt: skip


def _listen(port: int, pid: int) -> tuple[float, float]:
    """Bytes of each websocket, and seconds from a submission to the last that hears of it."""
    with Connection(port) as submitter, _Listeners() as listeners:
        # The first of everything costs more than the next.
        submitter.exchange(_SUBMIT)
        listeners.open(port, 10)
        before = resident_bytes(pid)
        listeners.open(port, WEBSOCKETS)
        each = (resident_bytes(pid) - before) / WEBSOCKETS
        taken = []
        for _ in range(3):
            listeners.forget_what_came()
            begun = time.perf_counter()
            submitter.exchange(_SUBMIT)
            listeners.until_all_heard()
            taken.append(time.perf_counter() - begun)
        return each, sorted(taken)[1]


class _Listeners:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}

    def __enter__(self) -> _Listeners:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()
        for opened in self._sockets.values():
            opened.close()

    def open(self, port: int, number: int) -> None:
        """Open so many more, each of them subscribed to all jobs."""
        for _ in range(number):
            opened = socket.create_connection(("127.0.0.1", port), timeout=_SILENCE_SECONDS)
            self._sockets[opened.fileno()] = opened
            opened.sendall(_HANDSHAKE)
            reply = b""
            while b"\r\n\r\n" not in reply:
                reply += _received(opened)
            if not reply.startswith(b"HTTP/1.1 101"):
                raise LoadError(f"no websocket: {reply[:300]!r}")
            opened.sendall(_masked(b'{"type": "subscribe", "channel": "jobs"}'))
            if not reply.partition(b"\r\n\r\n")[2]:
                _received(opened)
            self._epoll.register(opened.fileno(), select.EPOLLIN)

    def forget_what_came(self) -> None:
        """Read everything that has arrived already."""
        while ready := self._epoll.poll(0):
            for number, _ in ready:
                _received(self._sockets[number])

    def until_all_heard(self) -> None:
        """Wait until each has been sent a text message."""
        silent = set(self._sockets)
        while silent:
            ready = self._epoll.poll(_SILENCE_SECONDS)
            if not ready:
                raise LoadError(f"{len(silent)} of {len(self._sockets)} websockets heard nothing")
            for number, _ in ready:
                # A ping is no message.
                if _received(self._sockets[number])[0] & 0x0F == 1:
                    silent.discard(number)


def _received(opened: socket.socket) -> bytes:
    data = opened.recv(1 << 16)
    if not data:
        raise LoadError("the service closed a websocket")
    return data


def _masked(text: bytes) -> bytes:
    """A frame as clients must send it (RFC 6455, 5.3), for a text of fewer than 126 bytes."""
    mask = os.urandom(4)
    return bytes((0x81, 0x80 | len(text))) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
