"""The queue in front of a server: never more under way than allowed, by priority and then by age, and bounded."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from corral import AsyncClient, CallTimeoutError, Client, ConfigurationError, QueueFullError
from service.simulated import Fault, FaultKind, SimulatedServer
from tests.support.raw_server import Exchange, raw_server
from tests.support.running import QUICK


@asynccontextmanager
async def one_place(queue_size: int) -> AsyncIterator[tuple[AsyncClient, SimulatedServer]]:
    """An Ollama that answers nothing until it is released, and a client with one call at a time."""
    async with SimulatedServer(QUICK) as ollama, AsyncClient(ollama.url, model="llama3.2") as client:
        client.max_concurrent_requests, client.queue_size = 1, queue_size
        yield client, ollama


@pytest.mark.parametrize("most", [1, 5, 10])
async def test_of_two_hundred_calls_from_fifty_threads_no_more_are_under_way_than_allowed(most: int) -> None:
    async with SimulatedServer(QUICK) as ollama:
        stall = ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
        with Client(ollama.url, model="llama3.2") as client:
            client.max_concurrent_requests, client.queue_size = most, 200
            with ThreadPoolExecutor(50) as threads:
                calls = [threads.submit(client.generate, prompt=f"{number}", max_tokens=2) for number in range(200)]
                await ollama.observations.until(lambda seen: seen.stalled == min(most, QUICK.parallel))
                stall.release()
                answers = await asyncio.gather(*map(asyncio.wrap_future, calls))
            assert all(answer["usage"]["completion_tokens"] == 2 for answer in answers)
            stats = client.usage_stats
            assert stats["total_requests"] == stats["successful_requests"] == 200
            assert stats["total_completion_tokens"] == 400
            assert stats["total_tokens"] == sum(answer["usage"]["total_tokens"] for answer in answers)
            assert (client.active_requests, client.queued_requests) == (0, 0)
        assert ollama.observations.peak_in_flight <= most


async def test_who_waits_goes_by_priority_and_then_by_age() -> None:
    async with one_place(20) as (client, ollama):
        stall = ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
        calls = [asyncio.create_task(client.generate(prompt="first"))]
        await ollama.observations.until(lambda seen: seen.stalled == 1)
        asked = [("low 1", "low"), ("normal 1", None), ("high 1", 0), ("low 2", 2), ("high 2", "HIGH"), ("normal 2", 1)]
        for prompt, priority in asked:
            calls.append(asyncio.create_task(client.generate(prompt=prompt, priority=priority)))
            await asyncio.sleep(0)
        assert (client.active_requests, client.queued_requests) == (1, 6)
        stall.release()
        await asyncio.gather(*calls)
        order = ["first", "high 1", "high 2", "normal 1", "normal 2", "low 1", "low 2"]
        assert ollama.observations.prompts == order


async def test_one_more_than_may_wait_is_refused_at_once() -> None:
    async with one_place(2) as (client, ollama):
        stall = ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
        calls = [asyncio.create_task(client.generate(prompt=f"{number}")) for number in range(3)]
        await ollama.observations.until(lambda seen: seen.stalled == 1)
        assert client.queued_requests == 2
        with pytest.raises(QueueFullError, match="queue_size = 2") as refused:
            await client.generate(prompt="4", request_id="the fourth")
        assert isinstance(refused.value, ValueError)
        assert (refused.value.request_id, refused.value.attempts) == ("the fourth", 0)
        # A caller that leaves makes room.
        calls[2].cancel()
        await asyncio.wait((calls[2],))
        assert client.queued_requests == 1
        calls[2] = asyncio.create_task(client.generate(prompt="5"))
        stall.release()
        await asyncio.gather(*calls)
        stats = client.usage_stats
        assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (5, 3, 2)


async def test_limits_hold_from_the_moment_they_are_assigned() -> None:
    async with one_place(20) as (client, ollama):
        stall = ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
        calls = [asyncio.create_task(client.generate(prompt=f"{number}")) for number in range(8)]
        await ollama.observations.until(lambda seen: seen.stalled == 1)
        client.max_concurrent_requests = 4
        await ollama.observations.until(lambda seen: seen.stalled == 4)
        client.max_concurrent_requests = 2
        client.queue_size = 0
        with pytest.raises(QueueFullError):
            await client.generate(prompt="one more")
        assert (client.active_requests, client.queued_requests) == (4, 4)
        calls[0].cancel()
        calls[1].cancel()
        await asyncio.wait(calls[:2])
        # There are as many as may be now, and no further one begins.
        assert (client.active_requests, client.queued_requests) == (2, 4)
        stall.release()
        await asyncio.gather(*calls[2:])


async def test_limits_that_change_while_fifty_threads_ask_hold_for_all_of_them() -> None:
    async with SimulatedServer(QUICK) as ollama:
        first = ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat", times=4))
        second = ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))

        async def until_stalled(number: int) -> None:
            await ollama.observations.until(lambda seen: seen.stalled == number)

        with Client(ollama.url, model="llama3.2") as client:
            client.max_concurrent_requests, client.queue_size = 1, 49
            with ThreadPoolExecutor(51) as threads:
                calls = [threads.submit(client.generate, prompt=f"{number}", max_tokens=2) for number in range(50)]
                await until_stalled(1)
                client.max_concurrent_requests = 4
                await until_stalled(4)
                client.max_concurrent_requests = 2
                first.release()
                await asyncio.wait(map(asyncio.wrap_future, calls), return_when=asyncio.FIRST_COMPLETED)
                await ollama.observations.until(lambda seen: seen.requests["/api/chat"] == 6 and seen.stalled == 2)
                # Four have been answered, and only two have come after them.
                assert client.active_requests == 2
                client.queue_size = 0
                with pytest.raises(QueueFullError):
                    await asyncio.wrap_future(threads.submit(client.generate, prompt="one more"))
                client.max_concurrent_requests = 5
                await until_stalled(5)
                second.release()
                answers = await asyncio.gather(*map(asyncio.wrap_future, calls))
            assert len(answers) == 50
            assert (client.active_requests, client.queued_requests) == (0, 0)
            stats = client.usage_stats
            assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (51, 50, 1)
        assert ollama.observations.peak_in_flight <= 5


async def test_a_map_follows_the_limit_as_it_is_and_is_never_refused() -> None:
    async with one_place(0) as (client, ollama):
        stall = ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
        answers = client.map([f"{number}" for number in range(9)], in_flight=9, max_tokens=2)
        first = asyncio.ensure_future(anext(answers))
        await ollama.observations.until(lambda seen: seen.stalled == 1)
        client.max_concurrent_requests = 3
        await ollama.observations.until(lambda seen: seen.stalled == 3)
        with pytest.raises(QueueFullError):
            await client.generate(prompt="beside it")
        client.queue_size = 1
        beside = asyncio.create_task(client.generate(prompt="beside it", priority="high", max_tokens=2))
        await asyncio.sleep(0)
        assert not beside.done()
        stall.release()
        await first
        assert len([answer async for answer in answers]) == 8
        await beside
        assert ollama.observations.prompts.index("beside it") == 3
        assert ollama.observations.peak_in_flight == 3


async def test_what_the_input_of_a_map_raises_comes_after_the_answers_before_it() -> None:
    def broken() -> Iterator[str]:
        yield "0"
        yield "1"
        raise KeyError("gone")

    async with one_place(0) as (client, ollama):
        found = client.map(broken(), return_exceptions=True, max_tokens=2)
        assert [type(await anext(found)) for _ in range(2)] == [dict, dict]
        with pytest.raises(KeyError, match="gone"):
            await anext(found)

        def waiting() -> list[object]:
            with Client(ollama.url, model="llama3.2") as other:
                answers = other.map(broken(), max_tokens=2)
                seen: list[object] = [next(answers), next(answers)]
                with pytest.raises(KeyError, match="gone"):
                    next(answers)
            return seen

        assert len(await asyncio.to_thread(waiting)) == 2


async def test_who_is_admitted_and_leaves_at_the_same_moment_gives_the_place_back() -> None:
    async with one_place(5) as (client, ollama):
        stall = ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
        calls = [asyncio.create_task(client.generate(prompt=f"{number}")) for number in range(3)]
        await ollama.observations.until(lambda seen: seen.stalled == 1)
        client.max_concurrent_requests = 2
        calls[1].cancel()
        await ollama.observations.until(lambda seen: seen.stalled == 2)
        assert (client.active_requests, client.queued_requests) == (2, 0)
        stall.release()
        await asyncio.gather(*calls, return_exceptions=True)
        assert client.active_requests == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_concurrent_requests", 0),
        ("max_concurrent_requests", True),
        ("max_concurrent_requests", 2.5),
        ("queue_size", -1),
        ("max_retries", -1),
        ("initial_retry_delay", -0.1),
        ("backoff_factor", 0.5),
        ("max_retry_delay", float("inf")),
        ("timeout", 0),
        ("timeout", None),
        ("timeout", "30"),
        ("default_model", ""),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_where_it_is_assigned(name: str, value: object) -> None:
    client = Client("http://localhost:1")
    before = getattr(client, name)
    with pytest.raises(ConfigurationError, match=name):
        setattr(client, name, value)
    assert getattr(client, name) == before


async def test_the_time_of_a_maps_items_counts_while_nobody_says_who_the_server_is() -> None:
    async def say_nothing(exchange: Exchange) -> None:
        await exchange.until_gone()

    async with raw_server(say_nothing) as server, AsyncClient(server.url, timeout=3) as client:
        client.max_retries = 0
        answers = [one async for one in client.map(["a", "b"], max_wait_seconds=0.05, return_exceptions=True)]
        assert [type(one) for one in answers] == [CallTimeoutError] * 2
        assert all("max_wait_seconds" in str(one) for one in answers)
        assert client.usage_stats["failed_requests"] == 2


async def test_a_map_without_end_ends_with_its_client_also_where_errors_are_its_items() -> None:
    async with SimulatedServer(QUICK) as ollama:

        def close_in_the_middle() -> None:
            client = Client(ollama.url, model="llama3.2")
            answers = client.map((f"{number}" for number in itertools.count()), in_flight=2, return_exceptions=True)
            next(answers)
            client.close()
            with pytest.raises(ConfigurationError, match="closed"):
                next(answers)
            assert list(answers) == []

        await asyncio.to_thread(close_in_the_middle)
