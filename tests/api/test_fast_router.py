"""The short way to a handler is told from aiohttp's own by nothing but its speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from tests.dropin.test_wire import connected, post, reply_of
from tests.support.running import RunningService, service_in_process

PROMPT = {"prompt": "Why is the sky blue?"}


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process({"server.max_body": 2048}) as running:
        yield running


async def test_who_expects_to_be_told_to_go_on_is_told(service: RunningService) -> None:
    request = post("/api/v1/prompt", PROMPT, headers="Expect: 100-continue\r\n")
    head, _, body = request.partition(b"\r\n\r\n")
    async with connected(service) as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reply_of(reader))[0] == 202


async def test_a_query_behind_the_path_changes_nothing(service: RunningService) -> None:
    status, answer = await service.call("POST", "/api/v1/prompt?from=elsewhere", PROMPT)
    assert (status, answer["status"]) == (202, "queued")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/generate", 405), ("PUT", "/api/v1/prompt", 405), ("POST", "/api/v1/prompts", 405),
        ("PUT", "/api/v1/prompt/", 405), ("GET", "/nothing", 404), ("OPTIONS", "/api/v1/prompt", 204),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_answered_as_ever(
    service: RunningService, method: str, path: str, status: int
) -> None:
    async with service.session.request(method, path) as response:
        assert response.status == status


async def test_every_request_is_measured_by_its_route(service: RunningService) -> None:
    await service.submit()
    _, _ = await service.call("GET", "/requests")
    async with service.session.get("/metrics") as response:
        text = await response.text()
    assert 'method="POST",route="/api/v1/prompt",status="202"' in text
    assert 'method="GET",route="/requests",status="200"' in text


async def test_a_body_that_comes_in_pieces_is_read_to_its_end(service: RunningService) -> None:
    head, _, body = post("/api/v1/prompt", {"prompt": "piece by piece " * 20}).partition(b"\r\n\r\n")
    async with connected(service) as (reader, writer):
        for piece in (head, b"\r\n\r\n", body[:1], body[1:150], body[150:]):
            writer.write(piece)
            await writer.drain()
        assert (await reply_of(reader))[0] == 202


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Authorization: Bearer " + "k" * 65_536 + "\r\n", 200),
        ("Cookie: " + "c" * 65_536 + "\r\n", 200),
        ("Cookie: " + "c" * 66_600 + "\r\n", 400),
        ("".join(f"X-{number}: {number}\r\n" for number in range(250)), 200),
        ("".join(f"X-{number}: {number}\r\n" for number in range(260)), 400),
    ],
    ids=["token", "cookie", "longer", "lines", "more lines"],
)
async def test_headers_may_be_long_and_many_within_bounds(service: RunningService, headers: str, status: int) -> None:
    async with connected(service) as (reader, writer):
        writer.write(f"GET /api/version HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        assert (await reply_of(reader))[0] == status


async def test_a_body_that_says_nothing_of_its_length_is_refused_when_it_is_too_large(service: RunningService) -> None:
    head = b"POST /api/v1/prompt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with connected(service) as (reader, writer):
        writer.write(head + b"bb8\r\n" + b"x" * 3000 + b"\r\n0\r\n\r\n")
        assert (await reply_of(reader))[0] == 413


async def test_a_body_that_came_with_its_head_lies_where_it_is_looked_for() -> None:
    """aiohttp's own way to it is taken otherwise, and is slow."""
    content = StreamReader(BaseProtocol(asyncio.get_running_loop()), 65_536)
    content.feed_data(b"{}")
    content.feed_eof()
    assert list(content._buffer) == [b"{}"]
    assert content.is_eof()
