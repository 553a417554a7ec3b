"""What the tests of the backend client share: a client to a raw server, and its limits."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.backend.client import BackendClient, Deadlines
from service.backend.http.connections import Connections
from service.errors import BackendError
from tests.support.raw_server import END, STREAM, Exchange, RawServer, chunk, raw_server

LINE = b'{"response":"a","done":false}\n'
LAST = b'{"response":"","done":true}\n'
SOON = 0.05
"""A limit that is to run out. Every other limit of these tests is far away."""
FAR = Deadlines(connect=60.0, first_byte=60.0, stall=60.0, attempt=60.0)

_LOCALHOST = Path(__file__).with_name("localhost.pem")

Answer = Callable[[Exchange], Awaitable[None]]


@asynccontextmanager
async def backend(answer: Answer, **options: Any) -> AsyncIterator[tuple[BackendClient, RawServer]]:
    async with raw_server(answer) as server, Connections() as connections:
        yield BackendClient(connections, server.url, **options), server


async def answer_stream(exchange: Exchange) -> None:
    await exchange.send(STREAM + chunk(LINE) + chunk(LAST) + END)


async def collect(client: BackendClient, limits: Deadlines = FAR, body: bytes = b"{}") -> bytes:
    async with client.call("/api/generate", body, limits) as reply:
        return b"".join([data async for data in reply.chunks()])


async def failure(client: BackendClient, limits: Deadlines = FAR) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await collect(client, limits)
    return caught.value


def localhost_context() -> ssl.SSLContext:
    """What a server needs that is ``localhost``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_LOCALHOST)
    return context


def trust_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe that server while the test lasts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(_LOCALHOST))
