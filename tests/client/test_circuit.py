"""The circuit breaker: its whole diagram, over real attempts, with a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from functools import partial

import pytest

from corral import (
    Answer,
    AsyncClient,
    CircuitOpenError,
    Client,
    ConfigurationError,
    ConnectionFailedError,
    CorralError,
    ServerError,
)
from tests.client.test_giving_up import HEALTH
from tests.client.test_odd_replies import REPLIES, as_sent
from tests.client.test_retries import ANSWER, NO_HEALTH, refusal
from tests.support.client_time import OwnTime
from tests.support.raw_server import Exchange, RawServer, raw_server, whole

FAILS, BUSY, UNKNOWN = refusal("500 x"), refusal("503 x"), refusal("404 x")
MANY = refusal("429 x")


class Switched:
    """An Ollama that answers as the test has set it, or holds its answer back."""

    def __init__(self, server: RawServer) -> None:
        self.server = server
        self.reply = whole(ANSWER)
        self.held: list[asyncio.Event] | None = None
        self.posts = 0
        self.came = asyncio.Event()

    async def answer(self, exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.send(NO_HEALTH)
            return
        self.posts += 1
        reply = self.reply
        if self.held is not None:
            self.held.append(event := asyncio.Event())
            self.came.set()
            await event.wait()
            reply = self.reply
        if reply:
            await exchange.send(reply)
        else:
            exchange.reset()

    async def until_held(self, number: int) -> None:
        while self.held is None or len(self.held) < number:
            self.came.clear()
            await self.came.wait()


@asynccontextmanager
async def switched() -> AsyncIterator[tuple[AsyncClient, OwnTime, Switched]]:
    ollama: Switched

    async def answer(exchange: Exchange) -> None:
        await ollama.answer(exchange)

    async with raw_server(answer) as server, AsyncClient(server.url, model="m") as client:
        ollama = Switched(server)
        client.max_retries, client.failure_threshold, client.circuit_timeout = 0, 3, 30
        own_time = OwnTime(client)
        yield client, own_time, ollama


async def outcome(client: AsyncClient) -> type[Exception] | str:
    try:
        return (await client.generate(prompt="Why?"))["text"]
    except CorralError as error:
        return type(error)


async def opened(client: AsyncClient, ollama: Switched) -> None:
    ollama.reply = FAILS
    for _ in range(3):
        assert await outcome(client) is ServerError
    assert client.circuit_state == "OPEN"


async def test_it_opens_at_the_threshold_refuses_tries_once_and_closes() -> None:
    async with switched() as (client, own_time, ollama):
        ollama.reply = FAILS
        assert [await outcome(client), await outcome(client)] == [ServerError, ServerError]
        assert (client.circuit_state, client.failure_count) == ("CLOSED", 2)
        assert await outcome(client) is ServerError
        assert (client.circuit_state, client.failure_count, ollama.posts) == ("OPEN", 3, 3)
        own_time.now += 20
        with pytest.raises(CircuitOpenError) as refused:
            await client.generate(prompt="Why?")
        assert isinstance(refused.value, RuntimeError)
        assert (refused.value.retry_after_seconds, refused.value.attempts, ollama.posts) == (10, 0, 3)
        own_time.now += 10
        assert client.circuit_state == "HALF-OPEN"
        assert await outcome(client) is ServerError
        assert (client.circuit_state, ollama.posts) == ("OPEN", 4)
        own_time.now += 30
        ollama.reply = whole(ANSWER)
        assert await outcome(client) == "yes"
        assert (client.circuit_state, client.failure_count) == ("CLOSED", 0)


async def test_a_success_begins_the_count_anew_and_what_is_no_failure_does_not() -> None:
    async with switched() as (client, _, ollama):
        for reply in (FAILS, FAILS, whole(ANSWER), FAILS, UNKNOWN, MANY, BUSY, FAILS):
            ollama.reply = reply
            await outcome(client)
        assert (client.circuit_state, client.failure_count) == ("CLOSED", 2)


@pytest.mark.parametrize("reply", [b"", FAILS, whole(b"{"), whole(b"<html>", content_type="text/html")])
async def test_connections_that_break_replies_that_are_broken_and_5xx_count(reply: bytes) -> None:
    async with switched() as (client, _, ollama):
        ollama.reply = reply
        await outcome(client)
        assert client.failure_count == 1


@pytest.mark.parametrize("reply", [UNKNOWN, MANY, BUSY])
async def test_a_trial_that_says_nothing_about_the_server_decides_nothing(reply: bytes) -> None:
    async with switched() as (client, own_time, ollama):
        await opened(client, ollama)
        own_time.now += 30
        ollama.reply = reply
        await outcome(client)
        assert client.circuit_state == "HALF-OPEN"
        ollama.reply = whole(ANSWER)
        assert await outcome(client) == "yes"
        assert client.circuit_state == "CLOSED"


async def test_a_trial_that_is_cancelled_decides_nothing() -> None:
    async with switched() as (client, own_time, ollama):
        await opened(client, ollama)
        own_time.now += 30
        ollama.held = []
        trial = asyncio.create_task(outcome(client))
        await ollama.until_held(1)
        assert await outcome(client) is CircuitOpenError
        trial.cancel()
        await asyncio.wait((trial,))
        assert client.circuit_state == "HALF-OPEN"
        ollama.held[0].set()
        ollama.held, ollama.reply = None, whole(ANSWER)
        assert await outcome(client) == "yes"


async def test_of_attempts_begun_before_the_opening_a_failure_is_passed_over_and_a_success_closes() -> None:
    async with switched() as (client, own_time, ollama):
        ollama.held = []
        early = [asyncio.create_task(outcome(client)) for _ in range(2)]
        await ollama.until_held(2)
        held, ollama.held = ollama.held, None
        await opened(client, ollama)
        own_time.now += 29
        held[0].set()
        assert await early[0] is ServerError
        own_time.now += 1
        assert client.circuit_state == "HALF-OPEN"
        ollama.reply = whole(ANSWER)
        held[1].set()
        assert await early[1] == "yes"
        assert client.circuit_state == "CLOSED"


async def test_of_a_hundred_threads_at_the_half_open_moment_one_makes_the_trial() -> None:
    async with switched() as (_, _, ollama):
        with Client(ollama.server.url, model="m") as client:
            client.max_retries, client.failure_threshold, client.max_concurrent_requests = 0, 1, 100
            own_time = OwnTime(client)
            ollama.reply = FAILS
            ask = partial(client.generate, prompt="Why?")
            with pytest.raises(ServerError):
                await asyncio.to_thread(ask)
            own_time.now += 30
            before, ollama.held, ollama.reply = ollama.posts, [], whole(ANSWER)
            with ThreadPoolExecutor(100) as threads:
                futures = [threads.submit(ask) for _ in range(100)]
                refused = await asyncio.to_thread(_done, futures, 99)
                await ollama.until_held(1)
                assert ollama.posts == before + 1
                assert {type(future.exception()) for future in refused} == {CircuitOpenError}
                ollama.held[0].set()
                texts = [(await asyncio.wrap_future(one))["text"] for one in futures if one not in refused]
            assert texts == ["yes"]
            assert client.circuit_state == "CLOSED"
            stats = client.usage_stats
            assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (101, 1, 100)


def _done(futures: list[Future[Answer]], number: int) -> set[Future[Answer]]:
    """The first so many that have ended."""
    found: set[Future[Answer]] = set()
    while len(found) < number:
        found |= wait(set(futures) - found, return_when=FIRST_COMPLETED).done
    return found


async def test_threshold_and_time_hold_as_soon_as_they_are_assigned() -> None:
    async with switched() as (client, own_time, ollama):
        await opened(client, ollama)
        own_time.now += 5
        client.circuit_timeout = 4
        assert client.circuit_state == "HALF-OPEN"
        client.circuit_timeout = 6
        assert client.circuit_state == "OPEN"
        for name, value in (("circuit_timeout", -1), ("failure_threshold", 0), ("failure_threshold", 1.5)):
            with pytest.raises(ConfigurationError, match=name):
                setattr(client, name, value)


async def test_calls_that_share_a_look_at_the_server_count_its_failure_once() -> None:
    async def reset(exchange: Exchange) -> None:
        exchange.reset()

    async with raw_server(reset) as server, AsyncClient(server.url, model="m") as client:
        client.max_retries, client.failure_threshold = 0, 5
        OwnTime(client)
        for number in range(1, 6):
            assert client.circuit_state == "CLOSED"
            found = await asyncio.gather(*(outcome(client) for _ in range(5)))
            assert found == [ConnectionFailedError] * 5
            assert (len(server.requests), client.failure_count) == (number, number)
        assert client.circuit_state == "OPEN"
        assert await outcome(client) is CircuitOpenError
        assert len(server.requests) == 5


@pytest.mark.parametrize("way", ["result", "stream"])
async def test_those_who_ask_for_their_jobs_do_not_give_up_together_while_the_service_is_away(way: str) -> None:
    refused = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal refused
        if refused < 5:
            refused += 1
            exchange.reset()
        elif exchange.path == "/health":
            await exchange.send(HEALTH)
        else:
            route = f"{exchange.method} {exchange.path.partition('?')[0]}"
            await exchange.send(as_sent(route, REPLIES[route]))

    async def ask(client: AsyncClient) -> str:
        job = client.job("j1")
        if way == "result":
            return (await job.result())["text"]
        return "".join([event.get("text", "") async for event in job.stream()])

    async with raw_server(answer) as server, AsyncClient(server.url) as client:
        OwnTime(client)
        assert await asyncio.gather(*(ask(client) for _ in range(8))) == ["yes"] * 8
        assert (refused, client.failure_count, client.circuit_state) == (5, 0, "CLOSED")
