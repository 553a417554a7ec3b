"""Whoever vanishes without a goodbye is found: callers and backends are asked whether they are still there."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from service.api.context import POOL
from service.backend.http.connection import Connection
from service.errors import Fault
from service.simulated import Fault as SimulatedFault
from service.simulated import FaultKind
from service.tcp_keepalive import find_the_vanished, has_vanished
from tests.dropin.test_callers import until_listed
from tests.support.backend_client import FAR, LINE, backend, failure
from tests.support.raw_server import STREAM, Exchange, chunk
from tests.support.running import RunningService, service_in_process

TIMED_OUT = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
"""What the kernel says of a connection whose other side does not answer any more."""


def asked(connection: Any) -> tuple[bool, int, int, int]:
    """Whether the other side is asked; after how many seconds, how often, and how many times."""
    idle = next(getattr(socket, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE") if hasattr(socket, name))
    return (
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0,
        *(connection.getsockopt(socket.IPPROTO_TCP, one) for one in (idle, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)),
    )


def accepted(service: RunningService, caller: socket.socket) -> Any:
    """The service's end of a caller's connection, as its transport."""
    assert service.runner.server is not None
    for handler in service.runner.server.connections:
        transport = handler.transport
        if transport is not None and transport.get_extra_info("peername") == caller.getsockname():
            return transport
    raise AssertionError("nobody has accepted it")


async def test_callers_and_backends_are_asked_after_a_minute_every_15_seconds_five_times() -> None:
    async with service_in_process() as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rpartition(":")[2]))
        writer.write(b"GET /api/version HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        caller = accepted(service, writer.get_extra_info("socket")).get_extra_info("socket")
        assert asked(caller) == (True, 60, 15, 5)
        await service.finished()
        [box] = service.app[POOL]
        opened = box.client._connections._open
        assert opened
        for connection in opened:
            assert connection._transport is not None
            assert asked(connection._transport.get_extra_info("socket")) == (True, 60, 15, 5)
        writer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_who_has_not_answered_to_what_was_sent_for_as_long_has_vanished_and_who_reads_nothing_has_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as reader:
        connection, _ = listener.accept()
        with connection:
            connection.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    connection.send(b"x" * 65_536)
            assert reader.fileno() >= 0
            assert not has_vanished(connection)
            told = bytearray(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104))
    limit_ms = (60 + 5 * 15) * 1000
    for unanswered, silent_ms, expected in (
        (1, limit_ms, True),
        (1, limit_ms - 1, False),
        (0, 10 * limit_ms, False),
    ):
        struct.pack_into("I", told, 24, unanswered)
        struct.pack_into("I", told, 56, silent_ms)
        assert has_vanished(Told(bytes(told))) is expected


class Told:
    """A socket of which the kernel tells this, since no packet can be lost on its way through one machine."""

    family = socket.AF_INET

    def __init__(self, info: bytes) -> None:
        self._info = info

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return self._info[:length]

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        raise AssertionError("nothing is set")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_a_request_that_a_backend_does_not_take_ends_as_soon() -> None:
    async with service_in_process() as service:
        await service.finished()
        [box] = service.app[POOL]
        for connection in box.client._connections._open:
            assert connection._transport is not None
            made = connection._transport.get_extra_info("socket")
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == (60 + 5 * 15) * 1000


async def test_a_socket_of_this_machine_only_is_served_as_ever() -> None:
    with tempfile.TemporaryDirectory(prefix="corral-test-") as folder:
        path = str(Path(folder) / "socket")
        async with service_in_process() as service:
            await web.UnixSite(service.runner, path).start()
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
                session.get("http://localhost/api/version") as reply,
            ):
                assert reply.status == 200


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_either_kind_of_loop_shows_of_a_socket_can_be_set(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> tuple[bool, int, int, int]:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            connection = writer.get_extra_info("socket")
            find_the_vanished(connection)
            found = asked(connection)
            writer.close()
            return found

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(scenario()) == (True, 60, 15, 5)


def test_a_socket_that_is_closed_already_or_of_another_kind_is_left_alone() -> None:
    with socket.socket() as closed:
        closed.close()
        find_the_vanished(closed)
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        find_the_vanished(left)
        assert left.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


@pytest.mark.parametrize("sent", [b"", STREAM + chunk(LINE)])
async def test_a_call_to_a_backend_that_has_vanished_ends_as_connection_lost(sent: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(sent)
        has_begun.set()
        await exchange.until_gone()

    has_begun = asyncio.Event()
    async with backend(answer) as (client, _):
        call = asyncio.create_task(failure(client, FAR))
        await has_begun.wait()
        connection: Connection
        [connection] = client._connections._open
        connection._transport._force_close(TIMED_OUT)  # type: ignore[union-attr]
        error = await call
        assert (error.code, error.fault) == ("connection_lost", Fault.TRANSIENT)
        assert "timed out" in str(error)


@pytest.mark.parametrize(("policy", "ends"), [("cancel", "cancelled"), ("finish", "completed")])
@pytest.mark.parametrize("stream", [True, False])
async def test_the_job_of_a_caller_that_has_vanished_follows_its_policy(policy: str, ends: str, stream: bool) -> None:
    body = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}], "stream": stream}
    async with service_in_process() as service:
        stall = service.ollama.arm(SimulatedFault(kind=FaultKind.STALL, after_tokens=3, endpoint="/api/chat"))
        async with aiohttp.ClientSession(service.url) as session:
            asking = asyncio.create_task(session.post("/api/chat", json=body, headers={"X-On-Disconnect": policy}))
            await service.ollama.observations.until(lambda seen: seen.stalled == 1)
            assert service.runner.server is not None
            [caller] = [one for one in service.runner.server.connections if one._current_request is not None]
            caller.transport._force_close(TIMED_OUT)  # type: ignore[union-attr]
            with suppress(aiohttp.ClientConnectionError):
                await asking
        if policy == "finish":
            stall.release()
        [job] = await until_listed(service, ends)
        assert job["prompt"] == "Why?"
