"""What waits is bounded: long polls and event streams of an owner, connections of an address, and bodies that stall."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from service.api.access.client_address import ClientAddresses
from service.api.context import LONG_LIVED
from service.api.http import receiving
from service.api.http.connection_bounds import Bounds, Connections
from service.api.live.websocket import identity
from service.api.long_lived import MOST_WAITS
from service.cli import serve
from service.cli.listening import bound_sockets
from service.config import load_config
from tests.dropin.test_wire import connected, reply_of
from tests.support.access import ADMIN, bearer, headers_of, made_key, service_with_keys
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

BLOB = f"/api/blobs/sha256:{'0' * 64}"
POLL = "GET /api/v1/prompt/{}/{} HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n"


class Transport(asyncio.Transport):
    """A connection from an address, with a descriptor."""

    def __init__(self, peer: Any, descriptor: int = 9) -> None:
        super().__init__({"peername": peer, "socket": Socket(descriptor)})


class Socket:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


def connections(bounds: Bounds, trusted: list[str] | None = None) -> Connections:
    config = load_config(options={"server.trusted_proxies": trusted or []})
    return Connections(ClientAddresses(config.server.trusted_proxies), bounds, any_page_may_call=True)


def entered(present: Connections, peer: Any, descriptor: int = 9) -> str | int:
    """The address that is counted, or the status of the refusal."""
    told = present.enter(Transport(peer, descriptor))
    if isinstance(told, str):
        return told
    assert b"\r\nRetry-After: 5\r\n" in told
    return int(told.split()[1])


def test_an_address_has_its_bound_and_this_machine_and_proxies_have_none() -> None:
    present = connections(Bounds(most=100, most_of_an_address=3, most_descriptors=1000), ["10.1.0.0/16"])
    assert [entered(present, ("192.0.2.1", 1)) for _ in range(4)] == ["192.0.2.1"] * 3 + [429]
    assert entered(present, ("192.0.2.2", 1)) == "192.0.2.2"
    # One who has an IPv6 address has its whole neighbourhood.
    assert [entered(present, (f"2001:db8::{n}", 1, 0, 0)) for n in range(1, 5)] == ["2001:db8::/64"] * 3 + [429]
    for peer in (("127.0.0.1", 1), ("::1", 1, 0, 0), ("10.1.2.3", 1), "", None):
        assert [entered(present, peer) for _ in range(5)] == [""] * 5, peer
    present.leave("192.0.2.1")
    assert [entered(present, ("192.0.2.1", 1)) for _ in range(2)] == ["192.0.2.1", 429]


def test_all_together_have_a_bound_and_the_last_descriptors_are_kept() -> None:
    present = connections(Bounds(most=5, most_of_an_address=100, most_descriptors=1000))
    assert [entered(present, ("192.0.2.1", 1)) for _ in range(6)] == ["192.0.2.1"] * 5 + [503]
    assert (entered(present, ("127.0.0.1", 1)), len(present)) == (503, 5)
    present.leave("192.0.2.1")
    assert entered(present, ("127.0.0.1", 1), descriptor=1000) == 503
    assert entered(present, ("127.0.0.1", 1), descriptor=999) == ""


async def test_a_connection_too_many_is_told_so_and_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Bounds(most=4, most_of_an_address=2, most_descriptors=1 << 20)
    monkeypatch.setattr(Bounds, "of_this_process", lambda: few)
    async with service_in_process() as service, AsyncExitStack() as stack:
        held = [await stack.enter_async_context(connected(service)) for _ in range(3)]
        status, answer = await service.call("GET", "/health")
        assert status == 200, answer
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        told = await reader.read()
        assert told.startswith(b"HTTP/1.1 503 ")
        # Any page may call here, so any may read it.
        assert b"\r\nAccess-Control-Allow-Origin: *\r\n" in told
        assert b'{"error":"there are as many connections as can be; try again later"}' in told
        writer.close()
        # Who is connected goes on, and who comes after another has left is served.
        reader, writer = held.pop()
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reply_of(reader))[0] == 200
        assert await reader.read() == b""
        async with connected(service) as (reader, writer):
            writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reply_of(reader))[0] == 200


@asynccontextmanager
async def polled(service: RunningService, job_id: str, headers: dict[str, str], number: int) -> AsyncIterator[None]:
    """So many connections that have asked for a long poll or for events, one kind after the other."""
    kinds = ("status?wait=60", "result?wait=60", "stream")
    async with AsyncExitStack() as stack:
        for n in range(number):
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
            stack.callback(writer.close)
            writer.write(POLL.format(job_id, kinds[n % 3], headers["Authorization"]).encode())
            if n % 100 == 99:
                await writer.drain()
        yield


async def settled(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)


async def test_an_owner_has_a_thousand_waits_and_another_its_own() -> None:
    async with service_with_keys(seats=1) as service:
        user, other = await made_key(service), await made_key(service)
        service.stall()
        jobs = []
        for key in (user, other):
            _, accepted = await service.call("POST", "/api/v1/prompt", {"prompt": "x"}, headers=bearer(key["key"]))
            jobs.append(accepted["id"])
        await service.until(jobs[0], "processing", headers=ADMIN)
        waits_of, mine, others = service.app[LONG_LIVED].waits_of, f"key:{user['id']}", f"key:{other['id']}"
        headers = bearer(user["key"])
        async with polled(service, jobs[0], headers, MOST_WAITS):
            await settled(lambda: waits_of(mine) == MOST_WAITS)
            for what in ("status?wait=60", "result?wait=60", "stream"):
                status, answer = await service.call("GET", f"/api/v1/prompt/{jobs[0]}/{what}", headers=headers)
                assert (status, "are open, which is the most" in answer["error"]) == (429, True)
            # It may ask without waiting, and everybody else may wait.
            assert (await service.call("GET", f"/api/v1/prompt/{jobs[0]}/status", headers=headers))[0] == 200
            async with polled(service, jobs[1], bearer(other["key"]), 3):
                await settled(lambda: waits_of(others) == 3)
        await settled(lambda: waits_of(mine) == waits_of(others) == 0)


async def test_a_websocket_whose_client_shows_nothing_is_closed_where_keys_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity, "GRACE_SECONDS", 0.2)
    async with service_with_keys() as service:
        async with service.session.ws_connect("/api/v1/ws") as unknown:
            closed = await unknown.receive(PATIENCE_SECONDS)
            assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 4401)
        _, answer = await service.call("POST", "/api/token", {}, headers=await headers_of(service))
        async with (
            service.session.ws_connect("/api/v1/ws", headers=await headers_of(service)) as known,
            service.session.ws_connect("/api/v1/ws") as late,
            service.session.ws_connect("/api/v1/ws") as unknown,
        ):
            await late.send_json({"type": "auth", "token": answer["access_token"]})
            await unknown.receive(PATIENCE_SECONDS)
            for socket in (known, late):
                await socket.send_json({"type": "subscribe", "channel": "jobs"})
                assert (await socket.receive_json())["type"] == "subscribed"
    async with service_in_process() as service, service.session.ws_connect("/api/v1/ws") as anybody:
        with pytest.raises(TimeoutError):
            await anybody.receive(0.6)


async def test_a_body_that_came_quickly_and_then_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "_PROGRESS_SECONDS", 0.3)
    async with service_with_keys() as service:
        authorization = f"Authorization: {ADMIN['Authorization']}\r\n"
        for path, size in (("/api/v1/prompt", 60_000), ("/api/generate", 2_000_000), (BLOB, 2_000_000)):
            async with connected(service) as (reader, writer):
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{authorization}Content-Length: {size}\r\n\r\n"
                writer.write(head.encode() + b"x" * (size // 2))
                status, _, _ = await reply_of(reader)
                assert status == 408, path
        assert (await service.call("GET", "/health"))[0] == 200


async def test_a_body_that_comes_slowly_but_comes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "_PROGRESS_SECONDS", 5.0)
    async with service_in_process() as service, connected(service) as (reader, writer):
        body = b'{"prompt": "slow"}'
        writer.write(b"POST /api/v1/prompt HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await reply_of(reader))[0] == 202


async def test_of_a_crowd_only_a_few_are_accepted_before_any_can_be_refused(tmp_path: Path) -> None:
    options = {"server.host": "127.0.0.1", "server.port": 0, "database.path": str(tmp_path / "queue.db")}
    config = load_config(environ={}, options=options)
    runner, numbers, clients = web.AppRunner(web.Application()), list[int](), list[socket.socket]()

    def refuse(_handler: object, transport: asyncio.Transport) -> None:
        numbers.append(transport.get_extra_info("socket").fileno())
        transport.abort()

    await runner.setup()
    assert runner.server is not None
    runner.server.connection_made = refuse  # type: ignore[method-assign, assignment]
    sockets = bound_sockets(config.server.host, config.server.port)
    try:
        port = await serve._listen(runner, sockets, config)
        # All of them wait in the kernel, which has room for them, before the loop has its next turn.
        for _ in range(300):
            clients.append(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS))
        await settled(lambda: len(numbers) == len(clients))
    finally:
        await runner.cleanup()
        for one in (*clients, *sockets):
            one.close()
    # Each that was refused gave its descriptor back to the next.
    assert len(set(numbers)) < 48
