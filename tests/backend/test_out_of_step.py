"""A backend that says more than it was asked, or before it was: no call gets what is another's, or nobody's."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

import pytest

from service.backend.client import BackendClient
from service.backend.http.connections import Connections
from tests.support.backend_client import FAR, backend, localhost_context, trust_localhost
from tests.support.raw_server import Exchange, whole

REFUSAL = whole(b'{"error":"busy"}', status="503 Service Unavailable")


@pytest.mark.parametrize(
    "stray",
    [
        whole(b"{}", status="500 Internal Server Error"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 500 Internal Server Error\r\nX-Stray: ",
        b"H",
        b"garbage",
    ],
)
async def test_what_follows_a_reply_changes_neither_it_nor_the_next(stray: bytes) -> None:
    async with backend(lambda exchange: exchange.send(whole(b"[1]") + stray)) as (client, server):
        for _ in range(3):
            async with client.call("/api/generate", b"{}", FAR) as reply:
                assert (reply.status, "X-Stray" in reply.headers, await reply.read()) == (200, False, b"[1]")
        assert server.connections == 3


async def test_an_empty_line_after_a_reply_is_nothing() -> None:
    async with backend(lambda exchange: exchange.send(whole(b"[1]") + b"\r\n")) as (client, server):
        for _ in range(2):
            async with client.call("/api/generate", b"{}", FAR) as reply:
                assert await reply.read() == b"[1]"
        assert server.connections == 1


async def test_what_follows_the_reply_to_head_is_nobodys() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(whole(b"") + REFUSAL)

    async with backend(answer) as (client, _):
        for _ in range(2):
            async with client.call("/api/blobs/sha256:1", None, FAR, method="HEAD") as reply:
                assert (reply.status, await reply.read()) == (200, b"")


@pytest.mark.parametrize("at_once", [len(REFUSAL), 40])
async def test_a_server_that_refuses_before_it_is_asked_is_heard_and_left(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under TLS 1.2 the server has the last word of the handshake, and what it says next comes along with it."""
    trust_localhost(monkeypatch)
    context = localhost_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(REFUSAL[:at_once])
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"{}")
            writer.write(REFUSAL[at_once:])
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server, Connections() as opened:
        client = BackendClient(opened, f"https://localhost:{server.sockets[0].getsockname()[1]}")
        for _ in range(2):
            async with client.call("/api/generate", b"{}", FAR) as reply:
                assert (reply.status, await reply.read()) == (503, b'{"error":"busy"}')
    assert connections == 2
