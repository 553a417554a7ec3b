"""Requests made by chance, for a service that is a process of its own: what must hold after each, and after all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.garbage import is_fault_of_ours
from tests.support.process_figures import resident_bytes
from tests.support.processes import PATIENCE_SECONDS, Service, running_service, simulated_process
from tests.support.raw_client import Answer, connected, read_answer, received_answer, request_of

MOST_GROWTH_BYTES = 50 << 20
"""Of the process, with its bounded caches full."""
MORE_DESCRIPTORS = 4
"""Connections to the backend and to the database that are kept for the next."""

_MODELS = json.dumps([{"name": name} for name in ("m", "forbidden", "llama3.2")])
_HEALTH = request_of("GET", "/health", b"")
_LOGGED = re.compile(r"Traceback|\bERROR\b|\bCRITICAL\b|Unhandled|never (awaited|retrieved)")
_CLOSED_BY_ERROR = b"\x88\x02\x03\xf3"
"""The websocket's frame that closes it with 1011, "internal error", as far as its text."""


class Footprint(NamedTuple):
    """What a process holds."""

    resident: int
    descriptors: int


class Target:
    """A service, and a connection of its own to it."""

    def __init__(self, service: Service) -> None:
        self.port = service.port
        self._process = service.process
        self._probe: socket.socket | None = None

    def attempt(self, pieces: list[bytes], method: str = "POST", *, is_whole: bool) -> list[Answer]:
        """Send each piece in a packet of its own; the replies. Fails when one of them tells of a failure of ours.

        ``is_whole``: exactly one answer will come. For anything else the service is told that nothing more follows,
        once it has had its turn.
        """
        with connected(self.port) as opened:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    opened.sendall(piece)
            if is_whole:
                answer = received_answer(opened, method)
                assert answer is not None, "no answer"
                answers = [answer]
            else:
                self.ping()
                answers = list(_all_answers(_rest(opened), method))
        for answer in answers:
            assert not is_fault_of_ours(answer), (answer.status, answer.body[:500])
        return answers

    def websocket(self, frames: list[bytes], *extensions: bytes) -> bytes:
        """Open a websocket, send these bytes, and read to its end. Fails when the service closes it for an error of
        its own.
        """
        with connected(self.port) as opened:
            opened.sendall(b"\r\n".join([*_UPGRADE, *extensions, b"", b""]))
            head = received_answer(opened, "GET")
            assert head is not None
            assert head.status == 101
            with contextlib.suppress(ConnectionError):
                for frame in frames:
                    opened.sendall(frame)
            self.ping()
            rest = _rest(opened)
        assert _CLOSED_BY_ERROR not in rest
        return rest

    def ping(self) -> None:
        """The service answers another client, and has read by then what was sent to it before."""
        if self._probe is None:
            self._probe = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)
        self._probe.sendall(_HEALTH)
        answer = received_answer(self._probe, "GET")
        assert answer is not None
        assert answer.status == 200

    def close(self) -> None:
        if self._probe is not None:
            self._probe.close()

    def check_log(self) -> None:
        """Fails when the service has said anything of an error."""
        lines = [*self._process.output, *self._process.errors]
        bad = [index for index, line in enumerate(lines) if _LOGGED.search(line)]
        assert not bad, "\n".join(lines[max(0, bad[0] - 3) : bad[0] + 40])

    def footprint(self) -> Footprint:
        descriptors = len(os.listdir(f"/proc/{self._process.pid}/fd"))
        return Footprint(resident_bytes(self._process.pid), descriptors)

    async def until_as_before(self, before: Footprint) -> None:
        """Wait until nothing is left of what was sent. Fails when something stays."""
        left = self.footprint()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (left := self.footprint()).descriptors > before.descriptors + MORE_DESCRIPTORS:
                    await asyncio.to_thread(self.ping)
        except TimeoutError:
            raise AssertionError(f"connections are left: {before}, {left}") from None
        assert left.resident <= before.resident + MOST_GROWTH_BYTES


@asynccontextmanager
async def fuzzed_service(folder: Path) -> AsyncIterator[Target]:
    """An open service over a simulated Ollama. Fails at the end when it has logged an error, or is gone."""
    async with (
        simulated_process(
            folder, "--models", _MODELS, "--tokens", "3", "--load-seconds", "0", "--parallel", "4"
        ) as url,
        # Whoever asks for a million tokens would wait for them.
        running_service(folder, OLLAMA_URL=url, CORRAL_MODELS=_BOUNDED) as service,
    ):
        target = Target(service)
        try:
            yield target
            await asyncio.to_thread(target.ping)
            target.check_log()
        finally:
            target.close()


_BOUNDED = json.dumps({name: {"max_tokens": 16} for name in ("m", "forbidden", "llama3.2")})
_UPGRADE = (
    b"GET /api/v1/ws HTTP/1.1",
    b"Host: localhost",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def _rest(opened: socket.socket) -> bytes:
    """All that comes after we have said that nothing follows."""
    received = b""
    with contextlib.suppress(ConnectionError, OSError):
        opened.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionError):
        while data := opened.recv(1 << 16):
            received += data
    return received


def _all_answers(data: bytes, method: str) -> Iterator[Answer]:
    """The replies, one after the other; what follows the last whole one is left out."""
    while data.startswith(b"HTTP/"):
        answer = read_answer(data, method, is_over=True)
        if answer is None:
            return
        yield answer
        data = data[data.find(answer.body, data.find(b"\r\n\r\n") + 4) + len(answer.body) :].lstrip(b"\r\n0")
