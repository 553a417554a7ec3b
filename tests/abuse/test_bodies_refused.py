"""A refusal reaches who is still sending, whichever client it is; and who never stops sending is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import httpx2
import pytest
import pytest_asyncio

from tests.dropin.test_wire import connected, reply_of
from tests.support.access import ADMIN, service_with_keys
from tests.support.running import RunningService

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST_BYTES = 8 << 20
LARGE = b"x" * (MOST_BYTES - 1)
"""More than the kernel takes over while nobody reads: whoever sends it waits for us."""
TOO_LARGE = b"x" * (MOST_BYTES + (2 << 20))
_KERNELS_BYTES = 16 << 20
PIECE = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    async with service_with_keys({"server.max_body": MOST_BYTES}) as running:
        yield running


def by_http_client(url: str, data: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    with contextlib.closing(connection):
        connection.request("POST", "/api/chat", body=data, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.read()


def by_httpx(url: str, data: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    reply = httpx2.post(f"{url}/api/chat", content=data, headers=headers, timeout=None)
    return reply.status_code, reply.content


async def by_aiohttp(url: str, data: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/api/chat", data=io.BytesIO(data), headers=headers) as reply,
    ):
        return reply.status, await reply.read()


async def by_curl(url: str, data: bytes, headers: dict[str, str], folder: Path) -> tuple[int, bytes]:
    file = folder / "body"
    file.write_bytes(data)
    shown = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-w", "\n%{http_code}", "--data-binary", f"@{file}", *shown, f"{url}/api/chat"),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await curl.communicate()
    assert curl.returncode == 0
    body, _, status = said.rpartition(b"\n")
    return int(status), body


BLOCKING: list[Callable[[str, bytes, dict[str, str]], tuple[int, bytes]]] = [by_http_client, by_httpx]


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [(LARGE, {}, 401), (TOO_LARGE, {}, 401), (TOO_LARGE, ADMIN, 413)],
    ids=["without a key", "and too large", "too large"],
)
async def test_every_client_reads_its_refusal(
    service: RunningService, tmp_path: Path, data: bytes, headers: dict[str, str], status: int
) -> None:
    answers = [await asyncio.to_thread(ask, service.url, data, headers) for ask in BLOCKING]
    answers.append(await by_aiohttp(service.url, data, headers))
    answers.append(await by_curl(service.url, data, headers, tmp_path))
    # Whoever sends a key to this path finds the message in "detail", too.
    names = {"error", "detail"} if headers else {"error"}
    for found, body in answers:
        assert found == status
        assert set(json.loads(body)) == names


async def test_a_refused_upload_that_was_sent_to_its_end_leaves_the_connection_as_it_was(
    service: RunningService,
) -> None:
    async with connected(service) as (reader, writer):
        for _ in range(3):
            writer.write(b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(LARGE) + LARGE)
            assert (await reply_of(reader))[0] == 401


async def until_cut_off(writer: asyncio.StreamWriter) -> int:
    """Send pieces of a body until nobody takes them; how many bytes that were."""
    sent = 0
    while True:
        try:
            writer.write(PIECE)
            await writer.drain()
        except ConnectionError:
            return sent
        sent += len(PIECE)


@pytest.mark.parametrize("path", ["/api/chat", "/nowhere", "/health"])
async def test_a_body_that_never_ends_is_cut_off(service: RunningService, path: str) -> None:
    async with connected(service) as (reader, writer):
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        sent = await until_cut_off(writer)
        assert sent < MOST_BYTES + _KERNELS_BYTES
        with contextlib.suppress(ConnectionError):
            status, headers, _ = await reply_of(reader)
            assert status in (401, 404, 405)
            assert headers["connection"] == "close"


async def test_what_is_sent_ahead_of_its_turn_is_not_read_without_end(service: RunningService) -> None:
    """Requests with bodies behind one whose answer takes its time."""
    stalled = service.stall(after_tokens=1)
    body = json.dumps({"model": "llama3.2", "prompt": "x", "padding": "x" * 200_000}).encode()
    key = "".join(f"{name}: {value}\r\n" for name, value in ADMIN.items())
    request = f"POST /api/generate HTTP/1.1\r\nHost: x\r\n{key}Content-Length: {len(body)}\r\n\r\n".encode() + body
    async with connected(service) as (reader, writer):
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        assert service.runner.server is not None
        (connection,) = [one for one in service.runner.server.connections if one._current_request is not None]
        for _ in range(100):
            writer.write(request)
        while not connection._buffer_paused:  # noqa: ASYNC110 - aiohttp tells nobody
            await asyncio.sleep(0)
        assert len(connection._messages) <= 4
        stalled.release()
