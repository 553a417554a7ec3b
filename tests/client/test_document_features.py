"""The document's list of features, its first part: each sentence is a test here, named after it, in its order. What
is counted and what is passed on stands in ``test_document_calls``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any, NotRequired, get_origin, get_type_hints

import aiohttp
import pytest

from corral import (
    Answer,
    AsyncClient,
    Chunk,
    CircuitOpenError,
    Client,
    ConfigurationError,
    Embeddings,
    NotFoundError,
    QueueFullError,
    ServerError,
    Usage,
)
from tests.client.servers import Place, threaded
from tests.client.test_circuit import FAILS, outcome, switched
from tests.client.test_retries import ANSWER, client_of, failure, refusal
from tests.support.raw_server import whole

MESSAGES = [{"role": "user", "content": "Hello, how are you?"}]
BUSY = refusal("503 Service Unavailable")


@pytest.fixture
async def client(place: Place) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(place.url, model="llama3.2") as client:
        yield client


def require_shape(value: Any, kind: Any) -> None:
    """All that must be there is, and nothing that is not known."""
    hints = get_type_hints(kind, include_extras=True)
    required = {name for name, hint in hints.items() if get_origin(hint) is not NotRequired}
    assert required <= set(value) <= set(hints), value


# Basic functionality


async def test_compatible_with_the_ollama_api_interface(client: AsyncClient, place: Place) -> None:
    chat = {"model": "llama3.2", "messages": MESSAGES, "options": {"num_predict": 3, "seed": 1}}
    bodies: dict[str, dict[str, Any]] = {
        "/api/chat": chat,
        "/api/generate": {"model": "llama3.2", "prompt": "Hello", "options": {"num_predict": 3, "seed": 1}},
        "/api/embed": {"model": "nomic-embed-text", "input": "Hello"},
        "/v1/chat/completions": {"model": "llama3.2", "messages": MESSAGES, "max_tokens": 3},
    }
    async with aiohttp.ClientSession(place.url) as session:
        for path, body in bodies.items():
            by_us = await client.make_post_request_ollama(place.url + path, body)
            async with session.post(path, json={**body, "stream": False}) as response:
                assert set(by_us) == set(await response.json()), path
        async with session.get("/api/tags") as response:
            assert await client.list_models() == (await response.json())["models"]
    parts = [part async for part in await client.make_post_request_ollama("/api/chat", chat, stream=True)]
    assert [part["done"] for part in parts].count(True) == 1
    with pytest.raises(ConfigurationError, match="server"):
        await client.make_post_request_ollama("http://elsewhere:11434/api/chat", chat)


async def test_support_for_chat_generate_and_completions_endpoints(client: AsyncClient) -> None:
    for answer in (
        await client.chat(messages=MESSAGES, max_tokens=3),
        await client.generate(prompt="Hello", max_tokens=3),
        await client.completions(prompt="Hello", max_tokens=3),
        await client("chat", messages=MESSAGES, max_tokens=3),
        await client("generate", prompt="Hello", max_tokens=3),
        await client("completions", prompt="Hello", max_tokens=3),
    ):
        assert answer["text"]
        assert answer["usage"]["completion_tokens"] == 3


async def test_support_for_stream_and_non_stream_modes(client: AsyncClient) -> None:
    whole_text = (await client.chat(messages=MESSAGES, max_tokens=5, seed=1))["text"]
    for stream in (
        client.stream_chat(messages=MESSAGES, max_tokens=5, seed=1),
        client("stream_chat", messages=MESSAGES, max_tokens=5, seed=1),
    ):
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk["text"] for chunk in chunks) == whole_text
        assert [chunk["done"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_model_listing_and_endpoint_handling(client: AsyncClient) -> None:
    assert "llama3.2" in {model["name"].partition(":")[0] for model in await client.list_models()}
    handler = client.create_ollama_endpoint_handler(f"{client.ollama_api_url}/chat")
    assert (await handler("Hello", max_tokens=2))["usage"]["completion_tokens"] == 2
    assert await client.test_ollama_endpoint(client.ollama_api_url) is True
    client.default_model = "nosuch"
    assert await client.test_ollama_endpoint() is False
    with pytest.raises(ConfigurationError):
        client.create_ollama_endpoint_handler("http://elsewhere:11434/api/chat")
    with pytest.raises(ConfigurationError, match="endpoint_type"):
        client("list_models")


async def test_proper_response_processing_and_formatting(client: AsyncClient) -> None:
    answer = await client.chat(messages=MESSAGES, max_tokens=3)
    require_shape(answer, Answer)
    require_shape(answer["usage"], Usage)
    assert (answer["implementation_type"], answer["model"], answer["done_reason"]) == ("(REAL)", "llama3.2", "length")
    assert ("job_id" in answer) == (client.server == "corral")
    chunks = [chunk async for chunk in client.stream_chat(messages=MESSAGES, max_tokens=3)]
    for chunk in chunks:
        require_shape(chunk, Chunk)
    told = {name for name, hint in get_type_hints(Chunk, include_extras=True).items() if get_origin(hint) is None}
    assert told == {"text", "done", "model"}
    assert {"usage", "done_reason", "request_id"} <= set(chunks[-1])
    assert not {"usage", "done_reason", "request_id"} & set(chunks[0])
    for text in ("one", ["one"]):
        found = await client.embed(text, "nomic-embed-text")
        require_shape(found, Embeddings)
        assert (len(found["embeddings"]), found["usage"]["completion_tokens"]) == (1, 0)
        assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] > 0


# Queue and concurrency


async def test_thread_safe_request_queue_with_configurable_size_default_100(bare: Place) -> None:
    assert Client(bare.url).queue_size == 100
    stall = bare.stall()
    with threaded(bare, queue_size=3, max_concurrent_requests=1) as client, ThreadPoolExecutor(20) as threads:
        first = threads.submit(client.generate, prompt="first")
        await bare.until_stalled(1)
        calls = [threads.submit(client.generate, prompt=f"{number}") for number in range(20)]
        refused = await asyncio.to_thread(_ended, calls, 17)
        assert {type(call.exception()) for call in refused} == {QueueFullError}
        assert (client.queued_requests, client.active_requests) == (3, 1)
        stall.release()
        for call in [first, *(call for call in calls if call not in refused)]:
            assert (await asyncio.wrap_future(call))["text"]


def _ended(calls: list[Any], number: int) -> set[Any]:
    found: set[Any] = set()
    while len(found) < number:
        found |= wait(set(calls) - found, return_when="FIRST_COMPLETED").done
    return found


async def test_concurrency_limits_default_5_concurrent_requests(bare: Place) -> None:
    stall = bare.stall()
    async with AsyncClient(bare.url, model="llama3.2") as client:
        assert client.max_concurrent_requests == 5
        client.max_concurrent_requests = 3
        calls = [asyncio.create_task(client.generate(prompt=f"{number}", max_tokens=2)) for number in range(9)]
        await bare.until_stalled(3)
        assert (client.active_requests, client.queued_requests) == (3, 6)
        stall.release()
        await asyncio.gather(*calls)
    assert bare.ollama.observations.peak_in_flight == 3


async def test_priority_queue_system_with_high_normal_low_priority_levels(bare: Place) -> None:
    stall = bare.stall()
    async with AsyncClient(bare.url) as client:
        client.max_concurrent_requests = 1
        wanted = [("first", None), ("low", client.PRIORITY_LOW), ("normal", client.PRIORITY_NORMAL)]
        calls = []
        for prompt, priority in [*wanted, ("high", client.PRIORITY_HIGH)]:
            data = {"model": "llama3.2", "messages": [{"role": "user", "content": prompt}]}
            ask = client.make_post_request_ollama(f"{client.ollama_api_url}/chat", data, priority=priority)
            calls.append(asyncio.create_task(ask))
            if not priority and prompt == "first":
                await bare.until_stalled(1)
            await asyncio.sleep(0)
        assert client.queued_requests == 3
        stall.release()
        await asyncio.gather(*calls)
    assert bare.ollama.observations.prompts == ["first", "high", "normal", "low"]


async def test_queue_processor_thread_that_manages_concurrent_requests(place: Place) -> None:
    def ours() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "corral"]

    before = set(ours())
    client = threaded(place)
    assert set(ours()) == before
    with ThreadPoolExecutor(8) as threads:
        ask = partial(client.generate, max_tokens=2)
        answers = await asyncio.gather(
            *(asyncio.wrap_future(threads.submit(ask, prompt=f"{number}")) for number in range(8))
        )
    [thread] = set(ours()) - before
    assert thread.daemon
    assert len(answers) == 8
    await asyncio.to_thread(client.close)
    assert not thread.is_alive()


async def test_thread_safe_locks_for_all_shared_resources(bare: Place) -> None:
    seen: list[bool] = []

    def work(number: int) -> None:
        asked.max_concurrent_requests = 1 + number % 7
        asked.failure_threshold = 50 + number
        model = "nosuch" if number % 4 == 0 else "llama3.2"
        with contextlib.suppress(NotFoundError):
            asked.generate(model, f"{number}", 1)
        stats = asked.usage_stats
        seen.append(stats["total_requests"] == stats["successful_requests"] + stats["failed_requests"])

    with threaded(bare, queue_size=200) as asked, ThreadPoolExecutor(30) as threads:
        await asyncio.gather(*(asyncio.wrap_future(threads.submit(work, number)) for number in range(120)))
        stats = asked.usage_stats
        assert (stats["total_requests"], stats["failed_requests"], stats["total_completion_tokens"]) == (120, 30, 90)
        assert (asked.active_requests, asked.queued_requests, asked.failure_count) == (0, 0, 0)
    assert seen == [True] * 120


# Backoff and failure handling


async def slept(**attributes: float) -> list[float]:
    """The pauses of a call to a server that is always busy."""
    async with client_of(BUSY) as (client, own_time, posts):
        for name, value in attributes.items():
            setattr(client, name, value)
        error = await failure(client)
        assert error.attempts == len(posts) == len(own_time.sleeps) + 1
        return own_time.sleeps


async def test_exponential_backoff_retry_mechanism() -> None:
    bounds = [1, 2, 4, 8, 16]
    pauses = await slept()
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
    async with client_of(BUSY, BUSY, whole(ANSWER)) as (client, _, _):
        assert (await client.generate(prompt="Why?"))["attempts"] == 3


async def test_configurable_max_retries_default_5() -> None:
    assert Client("http://localhost:1").max_retries == 5
    for number in (0, 1, 5, 7):
        assert len(await slept(max_retries=number)) == number
    assert len(await slept()) == 5


async def test_configurable_initial_retry_delay_1_second() -> None:
    assert Client("http://localhost:1").initial_retry_delay == 1
    assert 0.5 <= (await slept())[0] <= 1
    assert 3 <= (await slept(initial_retry_delay=6))[0] <= 6
    assert set(await slept(initial_retry_delay=0)) == {0}


async def test_configurable_backoff_factor_2x() -> None:
    assert Client("http://localhost:1").backoff_factor == 2
    for factor, given in ((2, {}), (1, {"backoff_factor": 1}), (1.5, {"backoff_factor": 1.5})):
        pauses = await slept(max_retry_delay=1000, **given)
        assert all(factor**number / 2 <= pause <= factor**number for number, pause in enumerate(pauses))


async def test_maximum_retry_delay_cap_16_seconds() -> None:
    assert Client("http://localhost:1").max_retry_delay == 16
    assert all(8 <= pause <= 16 for pause in (await slept(max_retries=9))[4:])
    assert all(1.5 <= pause <= 3 for pause in (await slept(max_retry_delay=3))[2:])
    assert max(await slept(max_retries=3, backoff_factor=1e300)) <= 16


# Circuit breaker pattern


async def test_three_state_circuit_breaker_closed_open_half_open() -> None:
    async with switched() as (client, own_time, ollama):
        states = [client.circuit_state]
        ollama.reply = FAILS
        for _ in range(3):
            await outcome(client)
        states.append(client.circuit_state)
        own_time.now += 30
        states.append(client.circuit_state)
        await outcome(client)
        states.append(client.circuit_state)
        own_time.now += 30
        ollama.reply = whole(ANSWER)
        assert await outcome(client) == "yes"
        assert [*states, client.circuit_state] == ["CLOSED", "OPEN", "HALF-OPEN", "OPEN", "CLOSED"]


async def test_automatic_failure_detection_and_tracking() -> None:
    async with switched() as (client, _, ollama):
        for reply, count in ((FAILS, 1), (b"", 2), (refusal("404 x"), 2), (whole(ANSWER), 0), (whole(b"{"), 1)):
            ollama.reply = reply
            await outcome(client)
            assert client.failure_count == count


async def test_self_healing_capabilities_with_configurable_timeouts() -> None:
    assert Client("http://localhost:1").circuit_timeout == 30
    async with switched() as (client, own_time, ollama):
        client.circuit_timeout, client.failure_threshold, ollama.reply = 7, 1, FAILS
        assert await outcome(client) is ServerError
        ollama.reply = whole(ANSWER)
        own_time.now += 6
        assert await outcome(client) is CircuitOpenError
        own_time.now += 1
        assert [await outcome(client) for _ in range(3)] == ["yes"] * 3


async def test_fast_fail_for_unresponsive_services() -> None:
    async with switched() as (client, own_time, ollama):
        client.failure_threshold, client.max_retries, ollama.reply = 1, 5, FAILS
        assert await outcome(client) is ServerError
        sent, pauses = len(ollama.server.requests), len(own_time.sleeps)
        for _ in range(50):
            assert await outcome(client) is CircuitOpenError
        stream = client.stream_chat(messages=MESSAGES)
        with pytest.raises(CircuitOpenError):
            await anext(stream)
        assert (len(ollama.server.requests), len(own_time.sleeps)) == (sent, pauses)


async def test_failure_threshold_configuration() -> None:
    assert Client("http://localhost:1").failure_threshold == 5
    for threshold in (1, 2, 5):
        async with switched() as (client, _, ollama):
            client.failure_threshold, ollama.reply = threshold, FAILS
            ended = [await outcome(client) for _ in range(threshold + 1)]
            assert ended == [ServerError] * threshold + [CircuitOpenError]
