"""A peer that speaks HTTP/1.0, as nginx does unless it is told otherwise: it knows no chunks, so that the end of a
connection is the end of a stream, and a reset is all that tells of one that was cut.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

import pytest
import pytest_asyncio
from aiohttp import test_utils, web

from service.api.context import METRICS
from service.api.http.callers import CALLERS, cut_off
from service.api.http.raw_replies import stream_reply
from service.api.live import events
from service.simulated import Fault, FaultKind
from tests.abuse.test_replies_not_taken import until_all_are_answered
from tests.dropin.test_callers import newest
from tests.dropin.test_wire import CHAT, is_whole, post
from tests.support.access import ADMIN, service_with_keys
from tests.support.raw_server import STREAM, Exchange, chunk, raw_server, whole
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process
from tests.support.scripted_ollama import scripted

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEPT = "Connection: keep-alive\r\n"
LONG = "long " * 60_000
_ADMIN = f"Authorization: {ADMIN['Authorization']}\r\n"


class Server(Protocol):
    """What listens at an address."""

    @property
    def url(self) -> str: ...


class Address(NamedTuple):
    url: str


class Received(NamedTuple):
    """What came over a connection until it ended."""

    data: bytes
    is_reset: bool

    @property
    def head(self) -> str:
        return self.data.partition(b"\r\n\r\n")[0].decode().lower()

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]


Begin = Callable[[web.StreamResponse, asyncio.WriteTransport], Awaitable[bytes]]
"""Begins a stream; returns what its end is to bring."""


class Peer:
    """One connection to the service."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = b""

    async def send(self, request: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._connection, request)

    async def until(self, text: bytes) -> None:
        """Read until this has come."""
        while text not in self._data:
            piece = await self._piece()
            assert piece, self._data
            self._data += piece

    async def rest(self) -> Received:
        """Read until the service ends the connection; all that has come."""
        while True:
            try:
                piece = await self._piece()
            except ConnectionResetError:
                return Received(self._data, is_reset=True)
            if not piece:
                return Received(self._data, is_reset=False)
            self._data += piece

    async def _piece(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.get_running_loop().sock_recv(self._connection, 1 << 16)


@asynccontextmanager
async def peer_of(server: Server, request: bytes) -> AsyncIterator[Peer]:
    """A peer that has sent this; it takes little at once."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", int(server.url.rpartition(":")[2])))
        peer = Peer(connection)
        await peer.send(request)
        yield peer


async def received(server: Server, request: bytes) -> Received:
    """What is answered until the server ends the connection."""
    async with peer_of(server, request) as peer:
        return await peer.rest()


def get(path: str, headers: str = KEPT, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.0\r\nHost: x\r\n{headers}\r\n".encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    """One for all: what is answered does not depend on what came before."""
    async with service_with_keys(required=False) as running:
        yield running


async def of_a_job(service: RunningService, path: str) -> bytes:
    """A request for what a finished job with a long prompt has."""
    return get(path.format(id=await service.finished(LONG)))


CHATTING = post("/api/chat", CHAT, version="1.0", headers=KEPT)
PULLING = post("/api/pull", {"model": "llama3.2"}, version="1.0", headers=KEPT + _ADMIN)
EVENTS = post("/v1/chat/completions", CHAT, version="1.0", headers=KEPT)
STREAMED = {
    "lines": CHATTING,
    "events": EVENTS,
    "progress": PULLING,
    "a page's": post("/api/chat", CHAT, version="1.0", headers=KEPT + "Origin: http://elsewhere\r\n"),
    "a job's events": "/api/v1/prompt/{id}/stream",
    "a long request": "/api/v1/prompt/{id}/request",
    "a long result": "/api/v1/prompt/{id}/result",
}
"""Requests, or paths of what a job has."""


@pytest.mark.parametrize("request_or_path", STREAMED.values(), ids=STREAMED)
async def test_a_stream_ends_with_its_connection(service: RunningService, request_or_path: bytes | str) -> None:
    asked = request_or_path if isinstance(request_or_path, bytes) else await of_a_job(service, request_or_path)
    reply = await received(service, asked)
    assert reply.head.startswith("http/1.0 200 ")
    assert not reply.is_reset
    assert "transfer-encoding" not in reply.head
    assert "content-length" not in reply.head
    assert "keep-alive" not in reply.head
    assert "x-accel-buffering: no" in reply.head
    assert reply.body.rstrip().endswith((b"}", b"]"))


async def test_the_simulated_ollama_ends_its_streams_too(service: RunningService) -> None:
    assert is_whole((await received(service.ollama, CHATTING.replace(b"Host: x", b"Host: localhost"))).body)


async def test_a_connection_is_kept_behind_a_whole_reply(service: RunningService) -> None:
    asked = get("/metrics") + get("/api/tags") + CHATTING
    reply = await received(service, asked)
    assert reply.data.count(b"HTTP/1.0 200 ") == 3
    assert reply.data.lower().count(b"connection: keep-alive") == 2
    assert reply.data.count(b"X-Accel-Buffering") == 1
    assert is_whole(reply.data.rpartition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("path", ["/api/v1/prompt/{id}/request", "/api/v1/prompt/{id}/result", "/", "/api/tags"])
async def test_a_head_alone_has_no_body_and_no_reset(service: RunningService, path: str) -> None:
    job_id = await service.finished(LONG)
    reply = await received(service, get(path.format(id=job_id), "", method="HEAD"))
    assert reply.head.startswith("http/1.0 200 ")
    assert (reply.body, reply.is_reset) == (b"", False)


async def test_nobody_is_told_to_go_on_who_cannot_know_how(service: RunningService) -> None:
    asked = post("/api/chat", CHAT, version="1.0", headers=KEPT + "Expect: 100-continue\r\n")
    reply = await received(service, asked)
    assert reply.head.startswith("http/1.0 200 ")
    assert is_whole(reply.body)


async def test_a_websocket_is_refused_in_words(service: RunningService) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    for headers in (upgrade + "dGhlIHNhbXBsZSBub25jZQ==\r\n", "Connection: close\r\n"):
        reply = await received(service, get("/api/v1/ws", headers))
        assert reply.head.startswith("http/1.0 400 ")
        assert "HTTP/1.1" in json.loads(reply.body)["detail"]


async def test_a_sign_of_life_does_not_keep_the_connection() -> None:
    async with service_in_process({"queue.heartbeat_seconds": 0.01}) as service:
        stalled = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
        async with peer_of(service, CHATTING) as peer:
            await peer.until(b'"done":false}\n')
            stalled.release()
            reply = await peer.rest()
        assert (reply.is_reset, json.loads(reply.body.splitlines()[-1])["done"]) == (False, True)


@pytest.mark.parametrize("headers", [KEPT, "Connection: close\r\n"], ids=["kept", "closed"])
async def test_a_stream_that_breaks_off_ends_with_a_reset(service: RunningService, headers: str) -> None:
    broken = service.ollama.arm(Fault(kind=FaultKind.HANG_UP, endpoint="/api/chat", after_tokens=3))
    reply = await received(service, post("/api/chat", CHAT, version="1.0", headers=headers))
    broken.remove()
    assert reply.head.startswith("http/1.0 200 ")
    assert reply.body.count(b'"done":false') == 3
    assert "error" in json.loads(reply.body.splitlines()[-1])
    assert reply.is_reset


async def test_a_relayed_reply_that_breaks_off_ends_with_a_reset() -> None:
    async def serve(exchange: Exchange) -> None:
        if exchange.path != "/api/pull":
            await exchange.send(whole(b'{"version":"0.40.0","models":[]}'))
            return
        await exchange.send(STREAM + chunk(b'{"status":"pulling manifest"}\n'))
        await may_break.wait()
        exchange.reset()

    may_break = asyncio.Event()
    async with (
        raw_server(serve) as ollama,
        service_with_keys({"backends": [{"name": "a", "url": ollama.url}]}, required=False) as service,
        peer_of(service, PULLING) as peer,
    ):
        await peer.until(b"manifest")
        may_break.set()
        assert (await peer.rest()).is_reset


async def test_a_stream_of_events_that_breaks_off_ends_in_words() -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"a"}}]}\n\n'
    broken = STREAM.replace(b"application/x-ndjson", b"text/event-stream") + chunk(event) + b"no chunk\r\n"
    async with scripted(broken) as script:
        reply = await received(script.service, EVENTS)
        assert b'"error"' in reply.body.splitlines()[-2]
        assert not reply.is_reset


async def test_who_takes_nothing_is_cut_off_with_a_reset(service: RunningService) -> None:
    large = {"prompt": "long " * 1_100_000}
    accepted = await received(service, post("/api/v1/prompt", large, version="1.0"))
    asked = get(f"/api/v1/prompt/{json.loads(accepted.body)['id']}/request")
    callers = service.app[CALLERS]
    async with peer_of(service, asked) as peer:
        await peer.until(b"\r\n\r\n")
        patience_seconds, callers.patience_with_much_seconds = callers.patience_with_much_seconds, 0.0
        await until_all_are_answered(service)
        callers.patience_with_much_seconds = patience_seconds
        assert (await peer.rest()).is_reset


async def test_who_takes_no_events_is_cut_off_with_a_reset(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = service.ollama.arm(Fault(kind=FaultKind.LONG_LINE, endpoint="/api/generate", size=6_000_000))
    path = f"/api/v1/prompt/{await service.finished()}/stream"
    fault.remove()
    await received(service, get(path))
    streams = service.app[METRICS].routes["/api/v1/prompt/{id}/stream", "GET"].seconds
    before = streams.total
    monkeypatch.setattr(events, "_STALLED_SECONDS", 0.0)
    async with peer_of(service, get(path)) as peer:
        # It has read nothing, not even a head, when the service gives it up.
        async with asyncio.timeout(PATIENCE_SECONDS):
            while streams.total == before:
                await service.call("GET", "/api/version")
        assert (await peer.rest()).is_reset


async def fill(_response: web.StreamResponse, _transport: asyncio.WriteTransport) -> bytes:
    """The whole stream is its end."""
    return bytes(32 << 20)


async def overfill(response: web.StreamResponse, transport: asyncio.WriteTransport) -> bytes:
    """Write a little more than the kernel takes, and nothing in the end."""
    while not transport.get_write_buffer_size():
        await response.write(bytes(16 << 10))
    return b""


@pytest.mark.parametrize("begin", [fill, overfill])
async def test_a_stream_that_is_cut_while_its_end_waits_to_be_sent_ends_with_a_reset(begin: Begin) -> None:
    may_read = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = stream_reply(request, 200, ())
        await response.prepare(request)
        assert isinstance(request.transport, asyncio.WriteTransport)
        end = await begin(response, request.transport)
        # It comes when the write has sent what the kernel takes, and waits.
        asyncio.get_running_loop().call_soon(cut_off, request)
        try:
            await response.write_eof(end)
        finally:
            may_read.set()
        raise AssertionError("all of it was taken")

    app = web.Application()
    app.add_routes([web.get("/", answer)])
    async with (
        test_utils.TestServer(app) as server,
        peer_of(Address(str(server.make_url("")).rstrip("/")), get("/")) as peer,
    ):
        await may_read.wait()
        assert (await peer.rest()).is_reset


async def test_a_stream_that_the_stop_of_the_service_cuts_ends_with_a_reset() -> None:
    async with service_in_process() as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat", after_tokens=3))
        async with peer_of(service, CHATTING) as peer:
            await peer.until(b'"done":false}\n')
            await service.stop()
            assert (await peer.rest()).is_reset


async def test_who_leaves_a_stream_has_its_job_cancelled(service: RunningService) -> None:
    stalled = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat", after_tokens=3))
    async with peer_of(service, CHATTING) as peer:
        await peer.until(b'"done":false}\n')
    await service.until((await newest(service))["id"], "cancelled")
    stalled.remove()
