"""The client to one Ollama server, against real sockets that do what servers do on a bad day."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvloop

from service.backend.client import BackendClient, Limits, open_session
from service.errors import BackendError, Fault
from tests.raw_server import END, STREAM, Exchange, RawServer, chunk, raw_server, whole

LINE = b'{"response":"a","done":false}\n'
LAST = b'{"response":"","done":true}\n'
SOON = 0.05
"""A limit that is to run out. Every other limit of these tests is far away."""
FAR = Limits(connect=60.0, first_byte=60.0, stall=60.0, attempt=60.0)

Answer = Callable[[Exchange], Awaitable[None]]


@asynccontextmanager
async def backend(answer: Answer, **options: Any) -> AsyncIterator[tuple[BackendClient, RawServer]]:
    async with raw_server(answer) as server, open_session() as session:
        yield BackendClient(session, server.url, **options), server


async def answer_stream(exchange: Exchange) -> None:
    await exchange.send(STREAM + chunk(LINE) + chunk(LAST) + END)


async def collect(client: BackendClient, limits: Limits = FAR, body: bytes = b"{}") -> bytes:
    async with client.call("/api/generate", body, limits) as reply:
        return b"".join([data async for data in reply.chunks()])


async def failure(client: BackendClient, limits: Limits = FAR) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await collect(client, limits)
    return caught.value


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
    async with raw_server(answer_stream) as server, open_session() as session:
        address = server.url.removeprefix("http://")
        plain = BackendClient(session, f"http://{address}/ollama/", {"Authorization": "Bearer ours"})
        credentials = BackendClient(session, f"http://user:pass@{address}")
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


# What goes wrong


async def test_nobody_there_is_connect_failed() -> None:
    async with raw_server(answer_stream) as server:
        pass
    async with open_session() as session:
        error = await failure(BackendClient(session, server.url, name="box"))
        assert (error.code, error.fault) == ("connect_failed", Fault.ABSENT)
        assert str(error).startswith("box cannot be reached")


async def test_a_server_that_accepts_nobody_is_connect_failed() -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        async with open_session() as session:
            client = BackendClient(session, f"http://127.0.0.1:{listener.getsockname()[1]}")
            error = await failure(client, Limits(connect=SOON))
            assert (error.code, error.fault) == ("connect_failed", Fault.ABSENT)


async def test_silence_before_the_head_is_a_first_byte_timeout() -> None:
    gone = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.until_gone()
        gone.set()

    async with backend(answer) as (client, _):
        error = await failure(client, Limits(first_byte=SOON))
        assert (error.code, error.fault) == ("first_byte_timeout", Fault.TRANSIENT)
        await gone.wait()
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0


@pytest.mark.parametrize("sent", [STREAM, STREAM + chunk(LINE), STREAM + b"1e\r\n{"])
async def test_silence_in_the_middle_is_a_stall(sent: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(sent)
        await exchange.until_gone()

    async with backend(answer) as (client, _):
        error = await failure(client, Limits(stall=SOON))
        assert (error.code, error.fault) == ("stalled", Fault.TRANSIENT)


@pytest.mark.parametrize("sent", [b"", STREAM, STREAM + chunk(LINE)])
async def test_an_attempt_has_a_ceiling_at_every_stage(sent: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(sent)
        await exchange.until_gone()

    async with backend(answer) as (client, _):
        error = await failure(client, Limits(attempt=SOON).for_whole_reply())
        assert (error.code, error.fault) == ("attempt_timeout", Fault.PERMANENT)


async def test_an_endless_reply_meets_the_ceiling() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM)
        while not exchange.writer.is_closing():
            await exchange.send(chunk(LINE))
            await asyncio.sleep(0)

    async with backend(answer) as (client, _):
        assert (await failure(client, Limits(attempt=SOON))).code == "attempt_timeout"


async def test_the_ceiling_holds_while_nobody_reads() -> None:
    gone = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM + chunk(LINE))
        await exchange.until_gone()
        gone.set()

    async with backend(answer) as (client, _), client.call("/api/generate", b"{}", Limits(attempt=SOON)) as reply:
        pieces = reply.chunks()
        await anext(pieces)
        await gone.wait()
        with pytest.raises(BackendError) as caught:
            await anext(pieces)
        assert caught.value.code == "attempt_timeout"


@pytest.mark.parametrize(
    "sent",
    [STREAM + chunk(LINE), STREAM + b"1e\r\n{", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"],
)
@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_reply_that_breaks_off_is_lost(sent: bytes, is_reset: bool) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(sent)
        if is_reset:
            exchange.reset()
        else:
            exchange.writer.close()

    async with backend(answer) as (client, _):
        error = await failure(client)
        assert (error.code, error.fault) == ("connection_lost", Fault.TRANSIENT)


@pytest.mark.parametrize(
    "sent",
    [
        whole(b"<html>", content_type="text/html; charset=utf-8"),
        whole(b"<html>", status="502 Bad Gateway", content_type="text/html"),
        b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ],
)
async def test_what_is_not_ollama_is_called_so(sent: bytes) -> None:
    async with backend(lambda exchange: exchange.send(sent)) as (client, _):
        error = await failure(client)
        assert (error.code, error.fault) == ("not_ollama", Fault.ABSENT)


async def test_another_ones_cancellation_is_not_taken_for_a_timeout() -> None:
    class CancelledTwice(asyncio.Task[bytes]):
        """Somebody cancels it at the very moment at which the time runs out."""

        def cancel(self, msg: Any | None = None) -> bool:
            super().cancel(msg)
            return super().cancel(msg)

    async with backend(lambda exchange: exchange.until_gone()) as (client, _):
        with pytest.raises(asyncio.CancelledError):
            await CancelledTwice(collect(client, Limits(first_byte=SOON)))


# A pause of the whole process


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_bytes_that_arrived_during_a_pause_of_the_process_are_no_stall(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """The server lives in a thread, so that it goes on while the loop stands still."""
    listener = socket.create_server(("127.0.0.1", 0))
    may_send, has_sent, may_end = threading.Event(), threading.Event(), threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(STREAM + chunk(LINE))
            may_send.wait()
            connection.sendall(chunk(LAST) + END)
            has_sent.set()
            may_end.wait()

    async def scenario() -> bytes:
        loop = asyncio.get_running_loop()

        def pause() -> None:
            may_send.set()
            has_sent.wait()
            end = loop.time() + 4 * SOON
            while (left := end - loop.time()) > 0:
                may_end.wait(left)

        async with open_session() as session:
            client = BackendClient(session, f"http://127.0.0.1:{listener.getsockname()[1]}")
            async with client.call("/api/generate", b"{}", Limits(stall=2 * SOON)) as reply:
                pieces = reply.chunks()
                assert await anext(pieces) == LINE
                loop.call_soon(pause)
                return await anext(pieces)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            assert runner.run(scenario()) == LAST
    finally:
        may_send.set()
        may_end.set()
        thread.join()
        listener.close()


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


async def test_a_model_is_loaded_with_the_options_of_the_calls_to_come() -> None:
    async with backend(answering({"done": True, "done_reason": "load"})) as (client, server):
        await client.load("m", FAR)
        await client.load("m", FAR, options={"num_ctx": 512}, keep_alive=-1, shift=False)
        await client.load("e", FAR, endpoint="/api/embed", keep_alive="5m")
        await client.unload("m")
        assert [(request.path, json.loads(request.body)) for request in server.requests] == [
            ("/api/generate", {"model": "m", "stream": False}),
            (
                "/api/generate",
                {"model": "m", "stream": False, "options": {"num_ctx": 512}, "keep_alive": -1, "shift": False},
            ),
            ("/api/embed", {"model": "e", "keep_alive": "5m"}),
            ("/api/generate", {"model": "m", "keep_alive": 0, "stream": False}),
        ]


async def test_a_load_that_fails_says_why() -> None:
    async with backend(answering({"error": "model 'm' not found"}, "404 Not Found")) as (client, _):
        with pytest.raises(BackendError, match="model 'm' not found") as caught:
            await client.load("m", FAR)
        assert (caught.value.code, caught.value.fault) == ("model_not_found", Fault.PERMANENT)


async def test_the_session_bounds_nothing_by_itself() -> None:
    async with open_session() as session:
        assert session.timeout.total is None
        assert session.connector is not None
        assert session.connector.limit == 0
        assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
