"""What the tests of the backend client share: a client to a raw server, and its limits."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from service.backend.client import BackendClient, Connections, Limits
from service.errors import BackendError
from tests.raw_server import END, STREAM, Exchange, RawServer, chunk, raw_server

LINE = b'{"response":"a","done":false}\n'
LAST = b'{"response":"","done":true}\n'
SOON = 0.05
"""A limit that is to run out. Every other limit of these tests is far away."""
FAR = Limits(connect=60.0, first_byte=60.0, stall=60.0, attempt=60.0)

Answer = Callable[[Exchange], Awaitable[None]]


@asynccontextmanager
async def backend(answer: Answer, **options: Any) -> AsyncIterator[tuple[BackendClient, RawServer]]:
    async with raw_server(answer) as server, Connections() as connections:
        yield BackendClient(connections, server.url, **options), server


async def answer_stream(exchange: Exchange) -> None:
    await exchange.send(STREAM + chunk(LINE) + chunk(LAST) + END)


async def collect(client: BackendClient, limits: Limits = FAR, body: bytes = b"{}") -> bytes:
    async with client.call("/api/generate", body, limits) as reply:
        return b"".join([data async for data in reply.chunks()])


async def failure(client: BackendClient, limits: Limits = FAR) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await collect(client, limits)
    return caught.value


def trusted_context(directory: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server that is ``localhost`` needs, of an authority that is trusted while the test lasts."""
    authority, certificate = trustme.CA(), directory / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context
