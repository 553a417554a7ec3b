"""The client to one Ollama server, against sockets that do what servers do on a bad day."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import pytest
import uvloop

from service.backend.client import BackendClient, Deadlines
from service.backend.http.connections import Connections
from service.errors import BackendError, Fault
from tests.support.backend_client import LAST, LINE, SOON, answer_stream, backend, failure
from tests.support.raw_server import END, STREAM, Exchange, chunk, raw_server, whole

# What goes wrong


async def test_nobody_there_is_connect_failed() -> None:
    async with raw_server(answer_stream) as server:
        pass
    async with Connections() as connections:
        error = await failure(BackendClient(connections, server.url, name="box"))
        assert (error.code, error.fault) == ("connect_failed", Fault.ABSENT)
        assert str(error).startswith("box cannot be reached")


async def test_a_server_that_accepts_nobody_is_connect_failed() -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        async with Connections() as connections:
            client = BackendClient(connections, f"http://127.0.0.1:{listener.getsockname()[1]}")
            error = await failure(client, Deadlines(connect=SOON))
            assert (error.code, error.fault) == ("connect_failed", Fault.ABSENT)


async def test_silence_before_the_head_is_a_first_byte_timeout() -> None:
    gone = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.until_gone()
        gone.set()

    async with backend(answer) as (client, _):
        error = await failure(client, Deadlines(first_byte=SOON))
        assert (error.code, error.fault) == ("first_byte_timeout", Fault.TRANSIENT)
        await gone.wait()


@pytest.mark.parametrize("sent", [STREAM, STREAM + chunk(LINE), STREAM + b"1e\r\n{"])
async def test_silence_in_the_middle_is_a_stall(sent: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(sent)
        await exchange.until_gone()

    async with backend(answer) as (client, _):
        error = await failure(client, Deadlines(stall=SOON))
        assert (error.code, error.fault) == ("stalled", Fault.TRANSIENT)


@pytest.mark.parametrize("sent", [b"", STREAM, STREAM + chunk(LINE)])
async def test_an_attempt_has_a_ceiling_at_every_stage(sent: bytes) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(sent)
        await exchange.until_gone()

    async with backend(answer) as (client, _):
        error = await failure(client, Deadlines(attempt=SOON).for_whole_reply())
        assert (error.code, error.fault) == ("attempt_timeout", Fault.PERMANENT)


async def test_an_endless_reply_meets_the_ceiling() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM)
        while not exchange.writer.is_closing():
            await exchange.send(chunk(LINE))
            await asyncio.sleep(0)

    async with backend(answer) as (client, _):
        assert (await failure(client, Deadlines(attempt=SOON))).code == "attempt_timeout"


async def test_the_ceiling_holds_while_nobody_reads() -> None:
    gone = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(STREAM + chunk(LINE))
        await exchange.until_gone()
        gone.set()

    async with backend(answer) as (client, _), client.call("/api/generate", b"{}", Deadlines(attempt=SOON)) as reply:
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

        async with Connections() as connections:
            client = BackendClient(connections, f"http://127.0.0.1:{listener.getsockname()[1]}")
            async with client.call("/api/generate", b"{}", Deadlines(stall=2 * SOON)) as reply:
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
