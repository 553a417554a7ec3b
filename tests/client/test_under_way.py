"""What is under way ends together with its client, and all of it at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from corral import AsyncClient, Client, ConfigurationError
from corral.portal import SyncStream
from tests.client.test_giving_up import ACCEPTED, HEALTH, MESSAGES
from tests.client.test_retries import NO_HEALTH
from tests.client.test_streams import LAST, line, ollama_that_sends, streamed
from tests.support.raw_server import Exchange, RawServer, raw_server, whole

ITEMS = 5


class Silent:
    """A Corral that accepts jobs, says nothing of them, and answers nobody who calls one off."""

    def __init__(self) -> None:
        self.is_submitted, self.may_accept = asyncio.Event(), asyncio.Event()
        self.asked, self.called_off = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.may_answer = asyncio.Event()
        self.given_up = 0
        """Attempts to call a job off."""

    async def answer(self, exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.send(HEALTH)
        elif exchange.method == "POST":
            self.is_submitted.set()
            await self.may_accept.wait()
            await exchange.send(ACCEPTED)
        elif exchange.method == "DELETE":
            self.called_off.release()
            gone, answered = (asyncio.create_task(each) for each in (exchange.until_gone(), self.may_answer.wait()))
            await asyncio.wait((gone, answered), return_when=asyncio.FIRST_COMPLETED)
            self.given_up += gone.done()
            for each in (gone, answered):
                each.cancel()
            await asyncio.wait((gone, answered))
            if gone.cancelled():
                await exchange.send(whole(b"{}"))
        else:
            self.asked.release()
            await exchange.until_gone()

    async def until(self, what: asyncio.Semaphore, number: int) -> None:
        for _ in range(number):
            await what.acquire()


@asynccontextmanager
async def client_of(silent: Silent) -> AsyncIterator[tuple[AsyncClient, RawServer]]:
    async with raw_server(silent.answer) as server, AsyncClient(server.url, model="m") as client:
        yield client, server


@pytest.mark.parametrize("way", ["cancelled", "client closed"])
async def test_all_items_of_a_map_are_called_off_at_the_same_time(way: str) -> None:
    silent = Silent()
    silent.may_accept.set()
    async with client_of(silent) as (client, server):
        answers = client.map([str(number) for number in range(ITEMS)])
        reading = asyncio.ensure_future(anext(answers))
        await silent.until(silent.asked, ITEMS)
        closing = asyncio.create_task(client.aclose()) if way == "client closed" else None
        if closing is None:
            reading.cancel()
        # None of them is answered until all have come.
        await silent.until(silent.called_off, ITEMS)
        assert silent.given_up == 0
        silent.may_answer.set()
        await asyncio.wait((reading,))
        if closing is None:
            assert reading.cancelled()
        else:
            await closing
            assert "closed" in str(reading.exception())
        assert sum(one.method == "DELETE" for one in server.requests) == ITEMS


async def test_a_job_that_is_being_submitted_when_its_client_is_closed_is_called_off() -> None:
    silent = Silent()
    silent.may_answer.set()
    async with client_of(silent) as (client, server):
        submitting = asyncio.create_task(client.submit(messages=MESSAGES))
        await silent.is_submitted.wait()
        silent.may_accept.set()
        # The reply to it comes too late.
        await client.aclose()
        assert isinstance(submitting.exception(), ConfigurationError)
        posts = [one for one in server.requests if one.method == "POST"]
        assert len({one.headers["Idempotency-Key"] for one in posts}) == 1
        assert server.requests[-1].method == "DELETE"


async def test_a_stream_is_as_an_asynchronous_generator_is() -> None:
    reply = (streamed(line("one"), line(" two"), LAST), True)
    async with ollama_that_sends(reply) as (client, _):
        stream = client.map([{"messages": MESSAGES}])
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

        jobs = client.jobs()
        with pytest.raises(KeyError, match="mine"):
            await jobs.athrow(KeyError("mine"))

        post = await client.make_post_request_ollama("/api/chat", {"model": "m", "messages": MESSAGES}, stream=True)
        assert (await anext(post))["message"]["content"] == "one"
        with pytest.raises(KeyError, match="mine"):
            await post.athrow(KeyError("mine"))
        assert [each async for each in post] == []
        await post.aclose()


async def test_a_stream_has_one_reader() -> None:
    async with raw_server(_silent) as server, AsyncClient(server.url, model="m") as client:
        stream = client.map([{"messages": MESSAGES}])
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        for another in (anext(stream), stream.aclose()):
            with pytest.raises(RuntimeError, match="read already"):
                await another
        reading.cancel()
        await asyncio.wait((reading,))
        assert reading.cancelled()


async def _silent(exchange: Exchange) -> None:
    await exchange.until_gone()


async def test_another_thread_may_close_a_stream_that_is_read() -> None:
    asked = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.send(NO_HEALTH)
        else:
            asked.set()
            await exchange.until_gone()

    async with raw_server(answer) as server:
        client = Client(server.url, model="m")
        stream = client.stream_chat(messages=MESSAGES)
        assert isinstance(stream, SyncStream)
        reading = asyncio.create_task(asyncio.to_thread(next, stream))
        await asked.wait()
        try:
            with pytest.raises(RuntimeError, match="read already"):
                next(stream)
            await asyncio.to_thread(stream.close)
            with pytest.raises(ConfigurationError, match="stream was closed"):
                await reading
            assert list(stream) == []
            assert (client.active_requests, client.usage_stats["failed_requests"]) == (0, 1)
        finally:
            await asyncio.to_thread(client.close)
