"""A call that is called off, or whose pool is closed, leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from service.backend.client import BackendClient, Deadlines
from service.backend.http.connection import Connection
from service.backend.http.connections import Connections
from service.backend.http.incoming import IncomingReply
from service.errors import BackendError
from tests.support.backend_client import (
    FAR,
    LINE,
    SOON,
    answer_stream,
    collect,
    failure,
    localhost_context,
    trust_localhost,
)
from tests.support.raw_server import STREAM, Exchange, chunk, raw_server


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("is_tls", [False, True])
def test_a_connection_may_be_called_off_at_every_step(
    make_loop: Callable[[], asyncio.AbstractEventLoop], is_tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_localhost(monkeypatch)
    context = localhost_context() if is_tls else None
    troubles: list[dict[str, Any]] = []
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, trouble: troubles.append(trouble))
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        async with server, Connections() as opened:
            scheme = "https" if is_tls else "http"
            client = BackendClient(opened, f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}")
            for steps in range(200):
                calling = asyncio.ensure_future(collect(client))
                for _ in range(steps):
                    await asyncio.sleep(0)
                calling.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await calling
            # One that was left open would keep the server's side of it, and this test, waiting.
            while any(not task.done() for task in serving):
                await asyncio.wait(serving)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario())
    gc.collect()
    assert troubles == []


async def test_a_pool_that_is_closed_makes_no_connection_for_a_call_under_way() -> None:
    has_begun = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/api/version":
            await answer_stream(exchange)
        else:
            has_begun.set()
            await exchange.until_gone()

    async with raw_server(answer) as server:
        async with Connections() as opened:
            client = BackendClient(opened, server.url)
            async with client.call("/api/version", None, FAR, method="GET") as reply:
                await reply.read()
            failing = asyncio.ensure_future(failure(client))
            await has_begun.wait()
        assert (await failing).code == "connect_failed"
        assert (await failure(client)).code == "connect_failed"
        assert server.connections == 1


@pytest.mark.parametrize("sent", [b"", STREAM, STREAM + chunk(LINE), STREAM + b"no chunk", b"SSH-2.0-OpenSSH_9.9\r\n"])
async def test_a_call_that_failed_is_freed_at_once(sent: bytes) -> None:
    """What it holds may be large; the collector of cycles comes when it comes."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(sent)
        await exchange.until_gone()

    async with raw_server(answer) as server:
        gc.collect()
        gc.disable()
        try:
            # Its end waits until every connection is closed.
            async with Connections() as opened:
                with suppress(BackendError):
                    await collect(BackendClient(opened, server.url), Deadlines(first_byte=SOON, stall=SOON))
            assert not any(isinstance(one, Connection | IncomingReply) for one in gc.get_objects())
        finally:
            gc.enable()
