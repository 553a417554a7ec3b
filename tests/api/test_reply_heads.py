"""Replies whose heads we write ourselves look like those that aiohttp writes, to which all special cases are left."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from service.api.context import METRICS
from service.api.dropin.headers import passed_on
from service.api.http.raw_replies import whole_reply
from tests.dropin.test_wire import CHAT, connected, post, reply_of
from tests.support.running import RunningService, service_in_process

PROMPT = {"prompt": "Why is the sky blue?"}
CLOSE = "Connection: close\r\n"
"""With it a reply goes aiohttp's own way."""


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process() as running:
        yield running


def get(path: str, headers: str = "", *, method: str = "GET", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: x\r\n{headers}\r\n".encode()


async def asked(service: RunningService, request: bytes) -> tuple[int, dict[str, str], bytes]:
    async with connected(service) as (reader, writer):
        writer.write(request)
        return await reply_of(reader)


def comparable(headers: dict[str, str]) -> dict[str, str]:
    """Without what is of one job, of one moment, or of the connection."""
    own = ("connection", "date", "location", "x-job-id", "x-estimated-start-seconds", "content-length")
    return {name: value for name, value in headers.items() if name not in own}


@pytest.mark.parametrize(
    "path", ["/health", "/api/tags", "/api/v1/prompts", "/requests", "/api/models", "/v1/models/llama3.2"]
)
async def test_a_whole_reply_has_the_head_that_aiohttp_would_write(service: RunningService, path: str) -> None:
    ours, theirs = await asked(service, get(path)), await asked(service, get(path, CLOSE))
    assert ours[0] == theirs[0] == 200
    assert comparable(ours[1]) == comparable(theirs[1])
    assert ours[1].keys() == theirs[1].keys() - {"connection"}
    assert len(ours[2]) == int(ours[1]["content-length"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", CHAT), ("/api/chat", {**CHAT, "stream": False}), ("/v1/chat/completions", CHAT),
        ("/api/chat", {**CHAT, "model": "nosuch"}), ("/api/v1/prompt", PROMPT), ("/generate", PROMPT),
    ],
)  # fmt: skip
async def test_the_reply_of_a_job_has_it_too(service: RunningService, path: str, body: dict[str, Any]) -> None:
    ours, theirs = await asked(service, post(path, body)), await asked(service, post(path, body, headers=CLOSE))
    assert ours[0] == theirs[0]
    assert comparable(ours[1]) == comparable(theirs[1])
    assert ours[1].keys() == theirs[1].keys() - {"connection"}


async def test_a_head_alone_is_answered_without_a_body(service: RunningService) -> None:
    async with connected(service) as (reader, writer):
        writer.write(get("/api/version", method="HEAD") + get("/api/version"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status, headers, body = await reply_of(reader)
    assert status == 200
    assert f"content-length: {headers['content-length']}" in head
    assert json.loads(body)["version"]


@pytest.mark.parametrize("headers", ["", CLOSE], ids=["ours", "aiohttp's"])
async def test_every_stream_and_no_whole_reply_asks_nginx_to_collect_nothing(
    service: RunningService, headers: str
) -> None:
    path = f"/api/v1/prompt/{await service.finished('long ' * 60_000)}"
    streams = [post("/api/chat", CHAT, headers=headers), post("/v1/chat/completions", CHAT, headers=headers)]
    streams += [get(f"{path}/{what}", headers) for what in ("stream", "request", "result")]
    whole = [post("/api/chat", {**CHAT, "stream": False}, headers=headers)]
    whole += [get(other, headers) for other in (f"{path}/status", "/api/tags", "/metrics", "/", "/nothing")]
    assert [(await asked(service, one))[1].get("x-accel-buffering") for one in streams] == ["no"] * len(streams)
    assert [(await asked(service, one))[1].get("x-accel-buffering") for one in whole] == [None] * len(whole)


async def test_an_old_client_is_answered_as_it_understands(service: RunningService) -> None:
    async with connected(service) as (reader, writer):
        writer.write(post("/api/chat", CHAT, version="1.0"))
        text = (await reader.read()).decode()
    assert text.startswith("HTTP/1.0 200 OK")
    assert "chunked" not in text
    assert '"done":true' in text


async def test_requests_that_come_together_are_answered_in_their_order(service: RunningService) -> None:
    ids = [await service.finished(f"prompt {number}") for number in range(5)]
    async with connected(service) as (reader, writer):
        writer.write(b"".join(get(f"/api/v1/prompt/{job_id}/status") for job_id in ids) + post("/api/chat", CHAT))
        answers = [json.loads((await reply_of(reader))[2])["id"] for _ in ids]
        last = await reply_of(reader)
    assert answers == ids
    assert b'"done":true' in last[2]


async def test_replies_that_are_written_in_different_ways_keep_their_order(service: RunningService) -> None:
    job_id = await service.finished()
    path = f"/api/v1/prompt/{job_id}/status"
    requests = [
        get(path), get("/nothing"), get(path), get(path, "Origin: http://elsewhere\r\n"), get(path),
        post("/api/v1/prompt", b"no JSON"), get(path), post("/api/chat", CHAT), get(path, CLOSE),
    ]  # fmt: skip
    async with connected(service) as (reader, writer):
        writer.write(b"".join(requests))
        statuses = [(await reply_of(reader))[0] for _ in requests]
        assert await reader.read() == b""
    assert statuses == [200, 404, 200, 200, 200, 400, 200, 200, 200]


async def test_replies_to_who_reads_none_of_them_are_not_made_for_ever(service: RunningService) -> None:
    job_id = await service.finished("long " * 10_000)
    path, count = "/api/v1/prompt/{id}/result", 2_000
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, service.runner.addresses[0][:2])
        sending = asyncio.ensure_future(loop.sock_sendall(client, get(path.format(id=job_id)) * count))
        made = [0]
        # When others are answered again and again and nothing is added, it has come to a stop.
        while made[-1] == 0 or len(set(made[-4:])) > 1:
            for _ in range(30):
                await service.call("GET", "/api/version")
            measured = service.app[METRICS].routes.get((path, "GET"))
            made.append(sum(measured.statuses.values()) if measured is not None else 0)
        sending.cancel()
    assert made[-1] < count / 2


async def test_a_page_of_another_origin_may_read_it(service: RunningService) -> None:
    _, headers, _ = await asked(service, get("/api/v1/prompts", "Origin: http://elsewhere\r\n"))
    assert headers["access-control-allow-origin"] == "http://elsewhere"
    _, headers, _ = await asked(service, get("/api/v1/prompts"))
    assert "access-control-allow-origin" not in headers


def test_what_corral_says_of_a_job_counts_more_than_what_a_backend_says() -> None:
    theirs = {"X-Theirs": "somebody", "x-job-id": "theirs", "Content-Length": "5"}
    assert passed_on(theirs, {"X-Job-Id": "ours"}) == [("X-Theirs", "somebody"), ("X-Job-Id", "ours")]


def test_a_backend_gives_no_orders_to_a_proxy_before_corral() -> None:
    orders = {"X-Accel-Redirect": "/secret", "x-accel-buffering": "yes", "X-Sendfile": "/etc/passwd", "X-Own": "a"}
    assert passed_on(orders) == [("X-Own", "a")]


def test_a_header_of_more_than_one_line_is_left_to_aiohttp_to_refuse() -> None:
    request = make_mocked_request("GET", "/", app=web.Application())
    for odd in ("a\r\nSet-Cookie: b", "a\nb", "a\0", "a\x7f"):
        assert type(whole_reply(request, 200, [("X-Odd", odd)], b"")) is web.Response
