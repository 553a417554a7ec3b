"""The client to one Ollama server, against real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import pytest

from service.backend.client import BackendClient
from service.backend.http.connections import Connections
from service.errors import BackendError, Fault
from tests.support.backend_client import FAR, LAST, LINE, SOON, Answer, answer_stream, backend, collect, failure
from tests.support.raw_server import END, STREAM, Exchange, chunk, raw_server, whole

# Requests and replies


async def test_the_request_travels_as_it_is_and_the_reply_comes_back() -> None:
    body = '{"model":"m","prompt":"é","unknown":[1, 2]}'.encode()
    async with backend(answer_stream) as (client, server):
        async with client.call("/api/generate", body, FAR) as reply:
            assert (reply.status, reply.content_type) == (200, "application/x-ndjson")
            assert reply.headers["Transfer-Encoding"] == "chunked"
            assert b"".join([data async for data in reply.chunks()]) == LINE + LAST
        (request,) = server.requests
        assert (request.method, request.path, request.body) == ("POST", "/api/generate", body)
        assert request.headers["Content-Type"] == "application/json"


async def test_pieces_come_as_soon_as_they_are_sent() -> None:
    has_come = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM + chunk(LINE))
        await has_come.wait()
        await exchange.send(chunk(LAST) + END)

    async with backend(answer) as (client, _), client.call("/api/generate", b"{}", FAR) as reply:
        pieces = reply.chunks()
        assert await anext(pieces) == LINE
        has_come.set()
        assert await anext(pieces) == LAST
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)


async def test_headers_that_are_not_for_a_backend_stay_here() -> None:
    callers = {
        "Host": "corral.example",
        "origin": "https://evil.example",
        "Referer": "https://evil.example/x",
        "Authorization": "Bearer secret",
        "X-Api-Key": "secret",
        "Cookie": "a=b",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "TE": "trailers",
        "Accept-Encoding": "br",
        "Content-Length": "999",
        "Transfer-Encoding": "chunked",
        "Content-Type": "text/plain",
        "X-Kept": "1",
        "X-Team": "caller's",
    }
    async with backend(answer_stream, headers={"X-Team": "ours"}) as (client, server):
        async with client.call("/api/generate", b"{}", FAR, headers=callers) as reply:
            await reply.read()
        (request,) = server.requests
        host = server.url.removeprefix("http://")
        sent = {name.lower(): value for name, value in request.headers.items()}
        assert sent == {
            "host": host,
            "accept": "*/*",
            "accept-encoding": "identity",
            "user-agent": "ollama-corral",
            "content-type": "text/plain",
            "content-length": "2",
            "x-kept": "1",
            "x-team": "ours",
        }


async def test_configured_headers_and_credentials_reach_the_backend() -> None:
    async with raw_server(answer_stream) as server, Connections() as connections:
        address = server.url.removeprefix("http://")
        plain = BackendClient(connections, f"http://{address}/ollama/", {"Authorization": "Bearer ours"})
        credentials = BackendClient(connections, f"http://user:pass@{address}")
        await collect(plain)
        await collect(credentials)
        assert server.requests[0].path == "/ollama/api/generate"
        assert server.requests[0].headers["Authorization"] == "Bearer ours"
        assert server.requests[1].headers["Authorization"] == "Basic dXNlcjpwYXNz"
        assert credentials.url == f"http://{address}"


async def test_a_path_is_not_written_anew() -> None:
    async with backend(answer_stream) as (client, server):
        async with client.call("/v1/models/a%2Fb?x=%20", None, FAR, method="GET") as reply:
            await reply.read()
        assert server.requests[0].path == "/v1/models/a%2Fb?x=%20"


async def test_an_error_of_ollamas_is_a_reply_to_read() -> None:
    body = b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'
    answer = whole(body, status="503 Service Unavailable")
    async with backend(lambda exchange: exchange.send(answer)) as (client, _):
        async with client.call("/api/generate", b"{}", FAR) as reply:
            assert (reply.status, await reply.read()) == (503, body)
        assert await collect(client) == body


async def test_empty_bodies_end_again_and_again() -> None:
    async with backend(lambda exchange: exchange.send(whole(b"", content_type=""))) as (client, _):
        assert [await collect(client) for _ in range(3)] == [b"", b"", b""]


async def test_a_reply_is_not_unpacked() -> None:
    packed = gzip.compress(LAST)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with backend(lambda exchange: exchange.send(head + packed)) as (client, _):
        assert await collect(client) == packed


async def test_cookies_are_not_kept() -> None:
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
    async with backend(lambda exchange: exchange.send(head)) as (client, server):
        await collect(client)
        await collect(client)
        assert "Cookie" not in server.requests[1].headers


async def test_a_large_body_is_sent_whole() -> None:
    body = json.dumps({"images": ["x" * 3_000_000]}).encode()
    async with backend(answer_stream) as (client, server):
        assert await collect(client, body=body) == LINE + LAST
        assert server.requests[0].body == body


async def test_a_reply_that_is_too_large_to_read_is_refused() -> None:
    async with backend(answer_stream) as (client, _), client.call("/api/generate", b"{}", FAR) as reply:
        with pytest.raises(BackendError, match="more than 10 bytes"):
            await reply.read(limit_bytes=10)


# Connections


async def test_a_connection_is_used_again_after_a_reply_read_to_its_end() -> None:
    async with backend(answer_stream) as (client, server):
        for _ in range(3):
            await collect(client)
        assert server.connections == 1


async def test_leaving_early_closes_the_connection_at_once() -> None:
    gone = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM + chunk(LINE))
        await exchange.until_gone()
        gone.set()

    async with backend(answer) as (client, server):
        for _ in range(2):
            gone.clear()
            async with client.call("/api/generate", b"{}", FAR) as reply:
                async for _data in reply.chunks():
                    break
            await gone.wait()
        assert server.connections == 2


async def test_a_cancelled_wait_for_the_first_token_closes_the_connection() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        arrived.set()
        await exchange.until_gone()
        gone.set()

    async with backend(answer) as (client, _):
        task = asyncio.create_task(collect(client))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()


async def test_a_kept_connection_that_the_server_closed_is_no_failure() -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.connection == 1 and len(server.requests) > 1:
            exchange.writer.close()
        else:
            await answer_stream(exchange)

    async with backend(answer) as (client, server):
        assert await collect(client) == LINE + LAST
        assert await collect(client) == LINE + LAST
        assert [request.connection for request in server.requests] == [1, 1, 2]


async def test_a_kept_connection_that_was_reset_is_no_failure_either() -> None:
    large = b" " * 1_000_000

    async def answer(exchange: Exchange) -> None:
        if exchange.connection == 1 and len(server.requests) > 1:
            exchange.reset()
        else:
            await answer_stream(exchange)

    async with backend(answer) as (client, server):
        await collect(client)
        assert await collect(client, body=large) == LINE + LAST
        assert server.requests[-1].body == large


async def test_a_new_connection_that_closes_without_a_word_is_a_failure() -> None:
    async def answer(exchange: Exchange) -> None:
        exchange.writer.close()

    async with backend(answer) as (client, server):
        error = await failure(client)
        assert (error.code, error.fault) == ("connection_lost", Fault.TRANSIENT)
        assert server.connections == 1


async def test_a_body_that_was_handed_over_in_pieces_is_not_sent_twice() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    async def answer(exchange: Exchange) -> None:
        if len(server.requests) > 1:
            exchange.writer.close()
        else:
            await answer_stream(exchange)

    async with backend(answer) as (client, server):
        await collect(client)
        with pytest.raises(BackendError) as caught:
            async with client.call("/api/blobs/sha256:1", pieces(), FAR):
                pass
        assert caught.value.code == "connection_lost"
        assert len(server.requests) == 2


# Quick questions and orders


def answering(body: object, status: str = "200 OK") -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda exchange: exchange.send(whole(data, status=status, content_type="application/json; charset=utf-8"))


async def test_the_version_is_asked_for() -> None:
    async with backend(answering({"version": "0.24.0"})) as (client, server):
        assert await client.version() == "0.24.0"
        assert (server.requests[0].method, server.requests[0].path) == ("GET", "/api/version")


async def test_models_are_listed() -> None:
    tag = {"name": "tiny:latest", "model": "tiny:latest", "digest": "d", "size": 5, "details": {"family": "llama"}}
    loaded = tag | {"size_vram": 4, "context_length": 512, "expires_at": "2026-11-20T10:26:29.49698153Z"}
    async with backend(answering({"models": [tag, {"name": "b", "size": "x"}]})) as (client, _):
        first, second = await client.tags()
        assert (first.name, first.digest, first.size, first.entry) == ("tiny:latest", "d", 5, tag)
        assert (second.name, second.digest, second.size) == ("b", "", 0)
    async with backend(answering({"models": [loaded]})) as (client, _):
        (model,) = await client.ps()
        assert (model.name, model.digest, model.size, model.size_vram) == ("tiny:latest", "d", 5, 4)
        assert (model.context_length, model.expires_at) == (512, "2026-11-20T10:26:29.49698153Z")
    async with backend(answering({"models": None})) as (client, _):
        assert (await client.tags(), await client.ps()) == ((), ())


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", [], {}, {"models": 1}, {"models": [1]}, {"models": [{"name": 1}]}, {"version": 1}]
)
async def test_nonsense_is_not_ollama(body: object) -> None:
    async with backend(answering(body)) as (client, _):
        for ask in (client.version, client.tags, client.ps):
            with pytest.raises(BackendError) as caught:
                await ask()
            assert (caught.value.code, caught.value.fault) == ("not_ollama", Fault.ABSENT)


async def test_a_quick_question_does_not_wait_for_ever() -> None:
    async with backend(lambda exchange: exchange.until_gone(), quick_seconds=SOON) as (client, _):
        with pytest.raises(BackendError) as caught:
            await client.ps()
        assert caught.value.code == "attempt_timeout"


async def test_a_model_is_unloaded_without_being_loaded() -> None:
    async with backend(answering({"done": True, "done_reason": "unload"})) as (client, server):
        await client.unload("m")
        assert [(request.path, json.loads(request.body)) for request in server.requests] == [
            ("/api/generate", {"model": "m", "keep_alive": 0, "stream": False}),
        ]


async def test_an_unload_that_fails_says_why() -> None:
    async with backend(answering({"error": "model 'm' not found"}, "404 Not Found")) as (client, _):
        with pytest.raises(BackendError, match="model 'm' not found") as caught:
            await client.unload("m")
        assert (caught.value.code, caught.value.fault) == ("model_not_found", Fault.PERMANENT)
