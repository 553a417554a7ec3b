"""One connection to a backend, against servers that use what HTTP/1.1 allows, and what it does not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from service.backend.client import BackendClient
from service.backend.http import connections
from service.backend.http.connections import Connections
from service.errors import BackendError, Fault
from tests.support.backend_client import (
    FAR,
    LAST,
    LINE,
    SOON,
    answer_stream,
    backend,
    collect,
    failure,
    localhost_context,
    trust_localhost,
)
from tests.support.raw_server import END, STREAM, Exchange, chunk, raw_server, whole

HEAD_ONLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def test_the_reply_to_head_has_no_body_whatever_its_length_says() -> None:
    async with backend(lambda exchange: exchange.send(HEAD_ONLY + b"Content-Length: 99\r\n\r\n")) as (client, server):
        for _ in range(2):
            async with client.call("/api/blobs/sha256:1", None, FAR, method="HEAD") as reply:
                assert (reply.status, reply.headers["Content-Length"], await reply.read()) == (200, "99", b"")
        assert [request.method for request in server.requests] == ["HEAD", "HEAD"]


async def test_a_body_may_end_with_its_connection() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(HEAD_ONLY + b"\r\n" + LINE)
        await exchange.send(LAST)
        exchange.writer.close()

    async with backend(answer) as (client, server):
        assert [await collect(client) for _ in range(2)] == [LINE + LAST] * 2
        assert server.connections == 2


async def test_such_a_body_that_is_reset_is_lost() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(HEAD_ONLY + b"\r\n" + LINE)
        exchange.reset()

    async with backend(answer) as (client, _):
        assert (await failure(client)).code == "connection_lost"


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"]
)
async def test_an_interim_reply_is_passed_over(interim: bytes) -> None:
    async with backend(lambda exchange: exchange.send(interim + STREAM + chunk(LAST) + END)) as (client, server):
        for _ in range(2):
            async with client.call("/api/generate", b"{}", FAR) as reply:
                assert (reply.status, "Link" in reply.headers, await reply.read()) == (200, False, LAST)
        assert server.connections == 1


async def test_a_change_of_protocol_is_not_ollama() -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes"
    async with backend(lambda exchange: exchange.send(switch)) as (client, _):
        assert (await failure(client)).code == "not_ollama"


async def test_a_head_without_end_is_not_ollama() -> None:
    async with backend(lambda exchange: exchange.send(HEAD_ONLY + b"X-More: " + b"x" * 400_000)) as (client, _):
        assert (await failure(client)).code == "not_ollama"


async def test_many_kept_connections_that_the_server_closed_together_are_no_failure() -> None:
    has_all = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.connection > 8:
            await answer_stream(exchange)
        elif len(server.requests) <= 8:
            if len(server.requests) == 8:
                has_all.set()
            await has_all.wait()
            await answer_stream(exchange)
        else:
            exchange.reset()

    async with backend(answer) as (client, server):
        await asyncio.gather(*(collect(client) for _ in range(8)))
        assert await collect(client) == LINE + LAST
        assert [exchange.connection > 8 for exchange in server.requests[8:]] == [False, False, False, True]


async def test_a_connection_that_the_server_wants_closed_is_not_used_again() -> None:
    closing = HEAD_ONLY + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"
    async with backend(lambda exchange: exchange.send(closing)) as (client, server):
        assert [await collect(client) for _ in range(2)] == [b"{}"] * 2
        assert server.connections == 2


async def test_what_a_server_sends_unasked_is_nobodys_reply() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(whole(b"{}") + whole(b'{"of":"nobody"}'))

    async with backend(answer) as (client, _):
        assert [await collect(client) for _ in range(3)] == [b"{}"] * 3


@pytest.mark.parametrize("method", ["POST", "DELETE", "GET", "HEAD"])
async def test_a_request_without_a_body_says_so_where_one_could_be(method: str) -> None:
    async with backend(lambda exchange: exchange.send(HEAD_ONLY + b"Content-Length: 0\r\n\r\n")) as (client, server):
        async with client.call("/api/delete", None, FAR, method=method):
            pass
        said = server.requests[0].headers.get("Content-Length")
        assert said == ("0" if method in ("POST", "DELETE") else None)


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX-Odd: \x01\xe9\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_old_and_sloppy_servers_are_understood(sent: bytes) -> None:
    async with backend(lambda exchange: exchange.send(sent)) as (client, _):
        assert await collect(client) == b"{}"


@pytest.mark.parametrize("rest", [b"Content-Length: 2\r\n\r\n{}", b"\r\n{}"])
async def test_a_header_with_a_null_byte_is_not_ollama(rest: bytes) -> None:
    async with backend(lambda exchange: exchange.send(HEAD_ONLY + b"X-Odd: a\0b\r\n" + rest)) as (client, _):
        assert (await failure(client)).code == "not_ollama"


async def test_spaces_around_a_header_are_none_of_it() -> None:
    sent = HEAD_ONLY + b"X-Wide: \t a b \t\r\nX-Empty: \r\nContent-Length: 2\r\n\r\n{}"
    answering = backend(lambda exchange: exchange.send(sent))
    async with answering as (client, _), client.call("/api/generate", b"{}", FAR) as reply:
        assert (reply.headers["X-Wide"], reply.headers["X-Empty"]) == ("a b", "")


async def test_a_coding_that_has_no_end_ends_with_the_connection() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(HEAD_ONLY + b"Transfer-Encoding: identity\r\n\r\n{}")
        exchange.writer.close()

    async with backend(answer) as (client, _):
        assert await collect(client) == b"{}"


async def test_trailers_are_no_headers() -> None:
    trailed = STREAM + chunk(LAST) + b"0\r\nX-Late: 1\r\n\r\n"
    async with backend(lambda exchange: exchange.send(trailed)) as (client, server):
        for _ in range(2):
            async with client.call("/api/generate", b"{}", FAR) as reply:
                assert (await reply.read(), "X-Late" in reply.headers) == (LAST, False)
        assert server.connections == 1


async def test_more_than_a_reader_takes_is_left_with_the_server() -> None:
    piece = chunk(b"x" * 100_000)
    sent = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal sent
        exchange.writer.transport.set_write_buffer_limits(high=0)
        await exchange.send(STREAM)
        for _ in range(500):
            await exchange.send(piece)
            sent += 1
        await exchange.send(END)

    async def until_nothing_moves() -> None:
        # Both ends live in this loop, so that what could still be sent is sent in its next turns.
        before = -1
        while before != sent or sent == 0:
            before = sent
            for _ in range(100):
                await asyncio.sleep(0)

    async with backend(answer) as (client, _), client.call("/api/generate", b"{}", FAR) as reply:
        await until_nothing_moves()
        assert sent < 250
        assert sum([len(data) async for data in reply.chunks()]) == 500 * 100_000


async def test_a_body_in_pieces_is_sent_in_chunks() -> None:
    received = asyncio.StreamReader()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        yield b""
        yield b"second"

    async def answer(exchange: Exchange) -> None:
        received.feed_data(await exchange.reader.readuntil(b"0\r\n\r\n"))
        await exchange.send(whole(b"{}"))

    async with backend(answer) as (client, server):
        for _ in range(2):
            async with client.call("/api/blobs/sha256:1", pieces(), FAR) as reply:
                assert await reply.read() == b"{}"
            assert await received.read(100) == b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"
        assert server.requests[0].headers["Transfer-Encoding"] == "chunked"
        # Over connections of their own, since they could not be sent again.
        assert server.connections == 2


async def test_a_body_that_breaks_off_is_no_whole_request() -> None:
    gone = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        raise ConnectionResetError("the caller left")

    async def answer(exchange: Exchange) -> None:
        assert b"0\r\n\r\n" not in await exchange.reader.read()
        gone.set()

    async with backend(answer) as (client, _):
        with pytest.raises(BackendError, match="the caller left") as caught:
            async with client.call("/api/blobs/sha256:1", pieces(), FAR):
                pass
        assert caught.value.code == "connection_lost"
        await gone.wait()


async def test_an_answer_that_comes_before_the_request_is_sent_is_heard() -> None:
    never = asyncio.Event()
    has_ended = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await never.wait()
        finally:
            has_ended.set()

    refusal = whole(b'{"error":"too large"}', status="413 Content Too Large")
    async with backend(lambda exchange: exchange.send(refusal)) as (client, server):
        async with client.call("/api/blobs/sha256:1", pieces(), FAR) as reply:
            assert reply.status == 413
        await has_ended.wait()
        async with client.call("/api/blobs/sha256:1", b"x", FAR) as reply:
            assert reply.status == 413
        assert server.connections == 2


async def test_a_name_with_two_addresses_is_reached_at_either() -> None:
    async with raw_server(answer_stream) as server, Connections() as opened:
        port = server.url.rpartition(":")[2]
        client = BackendClient(opened, f"http://localhost:{port}")
        assert await collect(client) == LINE + LAST
        assert server.requests[0].headers["Host"] == f"localhost:{port}"


async def test_a_name_that_nobody_has_is_connect_failed() -> None:
    async with Connections() as opened:
        error = await failure(BackendClient(opened, "http://nobody.invalid:1", name="box"))
        assert (error.code, error.fault) == ("connect_failed", Fault.ABSENT)
        # Who reads it may know a backend's name, and not its address.
        assert str(error).startswith("box cannot be reached: ")
        assert "invalid" not in str(error)


async def test_a_connection_that_nobody_uses_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_KEEP_SECONDS", SOON)
    gone = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await answer_stream(exchange)
        await exchange.until_gone()
        gone.set()

    async with backend(answer) as (client, server):
        for _ in range(2):
            gone.clear()
            await collect(client)
            await gone.wait()
        assert server.connections == 2


async def test_connections_are_closed_at_the_end() -> None:
    gone = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await answer_stream(exchange)
        await exchange.until_gone()
        gone.set()

    async with raw_server(answer) as server:
        async with Connections() as opened:
            await collect(BackendClient(opened, server.url))
        await gone.wait()


async def test_a_server_behind_tls_must_be_who_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(STREAM + chunk(LAST) + END)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=localhost_context(), family=socket.AF_INET)
    async with server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        async with Connections() as opened:
            error = await failure(BackendClient(opened, url, name="box"))
            assert (error.code, "CERTIFICATE_VERIFY_FAILED" in str(error)) == ("connect_failed", True)
        trust_localhost(monkeypatch)
        async with Connections() as opened:
            assert await collect(BackendClient(opened, url)) == LAST
