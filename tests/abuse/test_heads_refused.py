"""Heads that are too large, or no HTTP, are refused in the shape of their path, and nobody waits behind them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.http.caller_connection import MOST_HEAD_BYTES
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = b"Host: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
HEADER = b"X-Large: " + b"a" * 60_000 + b"\r\n"
SHAPES = {
    "/api/chat": ("error",),
    "/v1/chat/completions": ("error", "message"),
    "/v1/messages": ("error", "message"),
    "/api/v1/prompt": ("detail",),
    "/generate": ("detail",),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_service() -> AsyncIterator[RunningService]:
    async with service_in_process() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def service(shared_service: RunningService, caplog: pytest.LogCaptureFixture) -> AsyncIterator[RunningService]:
    yield shared_service
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


@asynccontextmanager
async def connected(service: RunningService) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(service.url).port)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield reader, writer
    finally:
        writer.close()


async def reply_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


def message_in(path: str, body: bytes) -> str:
    found: Any = json.loads(body)
    for step in SHAPES[path]:
        found = found[step]
    return str(found)


def post(path: str, lines: bytes = HOST) -> bytes:
    return b"POST " + path.encode() + b" HTTP/1.1\r\n" + lines


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize(
    ("lines", "status", "words"),
    [
        (HOST + HOST + b"\r\n", 400, "Duplicate 'Host' header"),
        (HOST + b"Content-Type: a\r\nContent-Type: b\r\n\r\n", 400, "Duplicate 'Content-Type' header"),
        (HOST + CHUNKED + b"zz\r\n", 400, "chunk size"),
        (HOST + b"Content-Length: 1\r\n" + CHUNKED + b"0\r\n\r\n", 400, "Content-Length"),
        (HOST + b"Content-Length: -1\r\n\r\n", 400, "Content-Length"),
        (HOST + b"Transfer-Encoding: gzip\r\n\r\n", 400, "Transfer-Encoding"),
        (HOST + b"no header\r\n\r\n", 400, "header token"),
        (b"\r\n", 400, "Missing 'Host' header"),
        (HOST + b"X: 1\r\n" * 300 + b"\r\n", 400, "Too many headers"),
        (HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n", 400, "longer than 66560 bytes"),
        (HOST + HEADER * 5 + b"\r\n", 431, "larger than 262144 bytes"),
    ],
)
async def test_what_is_no_http_is_refused_in_the_shape_of_its_path_and_the_connection_ends(
    service: RunningService, path: str, lines: bytes, status: int, words: str
) -> None:
    async with connected(service) as (reader, writer):
        writer.write(post(path, lines))
        got, headers, body = await reply_of(reader)
        assert (got, headers["server"]) == (status, "Corral")
        assert words in message_in(path, body)
        assert await reader.read() == b""


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        (b"Transfer-Encoding: gzip, chunked", 501, "only chunked"),
        (b"Transfer-Encoding: deflate,chunked", 501, "only chunked"),
        (b"Transfer-Encoding: chunked\r\nExpect: wonders", 417, "only 100-continue"),
    ],
)
async def test_what_is_not_served_of_http_is_refused_in_the_shape_of_its_path(
    service: RunningService, path: str, line: bytes, status: int, words: str
) -> None:
    async with connected(service) as (reader, writer):
        writer.write(post(path) + line + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        got, headers, body = await reply_of(reader)
        assert (got, headers["server"]) == (status, "Corral")
        assert words in message_in(path, body)


@pytest.mark.parametrize("first", [b"GET /v1/models", b"GET /v1/models HTTP/0.9"])
async def test_other_versions_are_not_served(service: RunningService, first: bytes) -> None:
    async with connected(service) as (reader, writer):
        writer.write(first + b"\r\n" + HOST + b"\r\n")
        got, headers, body = await reply_of(reader)
        assert (got, headers["server"]) == (505, "Corral")
        assert "only HTTP/1.1" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("path", SHAPES)
async def test_a_body_that_breaks_while_it_is_read_is_refused_by_its_own_route(
    service: RunningService, path: str
) -> None:
    async with connected(service) as (reader, writer):
        writer.write(post(path) + CHUNKED + b'5\r\n{"a":\r\n')
        await until_others_were_answered(service)
        writer.write(b"zz\r\n")
        got, _, body = await reply_of(reader)
        assert got == 400
        assert "Invalid character in chunk size" in message_in(path, body)
        assert await reader.read() == b""


async def until_others_were_answered(service: RunningService) -> None:
    """A request on a connection of its own is answered: what was sent before was read by then."""
    async with connected(service) as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")
        await reply_of(reader)


async def test_a_head_without_end_is_refused_and_others_are_answered_meanwhile(service: RunningService) -> None:
    async with connected(service) as (reader, writer):
        writer.write(post("/api/chat"))
        sent = 0
        reply = asyncio.ensure_future(reply_of(reader))
        while not reply.done():
            writer.write(b"X-More: " + b"a" * 16_000 + b"\r\n")
            sent += 16_010
            await writer.drain()
            assert (await service.call("GET", "/health"))[0] == 200
            assert sent < 8 * MOST_HEAD_BYTES
        got, _, body = await reply
        assert (got, sent > MOST_HEAD_BYTES) == (431, True)
        assert "larger than 262144 bytes" in message_in("/api/chat", body)


async def test_a_caller_that_sends_on_reads_why_it_was_refused(service: RunningService) -> None:
    async with connected(service) as (reader, writer):
        writer.write(post("/api/chat") + HEADER * 64)
        got, _, _ = await reply_of(reader)
        assert got == 431
        assert await reader.read() == b""


async def test_trailers_without_end_are_refused(service: RunningService) -> None:
    async with connected(service) as (reader, writer):
        writer.write(post("/api/chat") + CHUNKED + b"2\r\n{}\r\n0\r\n")
        await until_others_were_answered(service)
        for _ in range(6):
            writer.write(HEADER)
            await writer.drain()
            await until_others_were_answered(service)
        got, _, body = await reply_of(reader)
        assert got == 400
        assert "larger than 262144 bytes" in message_in("/api/chat", body)


async def test_large_heads_and_bodies_within_their_bounds_pass(service: RunningService) -> None:
    async with connected(service) as (reader, writer):
        for _ in range(3):
            writer.write(b"GET /health HTTP/1.1\r\n" + HOST + HEADER * 4 + b"\r\n")
            assert (await reply_of(reader))[0] == 200
        body = b'{"model":"llama3.2","prompt":"' + b"a" * (8 * MOST_HEAD_BYTES) + b'"}'
        head = post("/api/v1/prompt") + b"Content-Length: %d\r\n\r\n" % len(body)
        for start in range(0, len(head + body), 50_000):
            writer.write((head + body)[start : start + 50_000])
            await writer.drain()
        assert (await reply_of(reader))[0] == 202


async def test_an_upload_behind_an_upgrade_that_is_declined_passes(service: RunningService) -> None:
    body = b'{"model":"llama3.2","prompt":"' + b"a" * (8 * MOST_HEAD_BYTES) + b'"}'
    upgrade = b"GET /health HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    async with connected(service) as (reader, writer):
        writer.write(upgrade + post("/api/v1/prompt") + b"Content-Length: %d\r\n\r\n" % len(body))
        assert (await reply_of(reader))[0] == 200
        for start in range(0, len(body), 50_000):
            writer.write(body[start : start + 50_000])
            await writer.drain()
        assert (await reply_of(reader))[0] == 202


@pytest.mark.parametrize(
    "lines",
    [
        b"Connection: keep-alive\r\nConnection: close\r\n",
        b"Connection: close\r\nConnection: keep-alive\r\n",
        b"Connection: keep-alive, close\r\n",
        b"Connection: x\r\nCONNECTION: Close\r\n",
    ],
)
async def test_every_connection_line_is_honoured(service: RunningService, lines: bytes) -> None:
    async with connected(service) as (reader, writer):
        writer.write(b"GET /requests HTTP/1.1\r\n" + HOST + lines + b"\r\n")
        assert (await reply_of(reader))[0] == 200
        assert await reader.read() == b""


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/requests", "GET"), ("/", "GET"), ("/static/list.js", "GET"), ("/nothing", "GET"), ("/api/nothing", "GET"),
        ("/api/tags", "HEAD"), ("/v1/models", "GET"), ("//", "GET"), ("/api/chat", "OPTIONS"), ("/api/v1/ws", "GET"),
    ],
)  # fmt: skip
async def test_every_reply_names_what_serves_it_without_versions(
    service: RunningService, path: str, method: str
) -> None:
    origin = {"Origin": "http://elsewhere", "Access-Control-Request-Method": "POST"}
    for headers in ({}, origin):
        async with service.session.request(method, path, headers=headers, allow_redirects=False) as response:
            assert response.headers.getall("Server") == ["Corral"]


LINES = st.lists(
    st.one_of(
        st.sampled_from([HOST, b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Connection: close\r\n"]),
        st.binary(max_size=40),
        st.sampled_from(
            [b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n"]
        ),
    ),
    max_size=12,
)


async def test_no_head_is_answered_with_an_error_of_ours(service: RunningService) -> None:
    statuses: list[bytes] = []

    async def ask(data: bytes) -> None:
        async with connected(service) as (reader, writer):
            writer.write(data)
            for _ in range(3):
                await until_others_were_answered(service)
            answer = b""
            with contextlib.suppress(ConnectionError):
                writer.write_eof()
                while piece := await reader.read(65_536):
                    answer += piece
            statuses.extend(line.split()[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1"))

    loop = asyncio.get_running_loop()

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from([*SHAPES, "/", "/x"]), st.sampled_from([b"POST ", b"GET ", b"\xff "]), LINES)
    def attack(path: str, method: bytes, lines: list[bytes]) -> None:
        data = method + path.encode() + b" HTTP/1.1\r\n" + b"".join(lines)
        asyncio.run_coroutine_threadsafe(ask(data), loop).result(PATIENCE_SECONDS)

    await asyncio.to_thread(attack)
    assert statuses
    assert not {status for status in statuses if status.startswith(b"5")} - {b"501", b"505"}
