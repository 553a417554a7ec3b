"""The document's list of features, its second part: what is counted, and what is passed on to Ollama."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from corral import (
    AsyncClient,
    CircuitOpenError,
    ConfigurationError,
    CorralError,
    NotFoundError,
    QueueFullError,
    UsageStats,
)
from tests.client.servers import Place, threaded
from tests.client.test_circuit import FAILS, switched
from tests.client.test_retries import ANSWER, client_of, refusal
from tests.support.raw_server import whole

MESSAGES = [{"role": "user", "content": "Hello, how are you?"}]
COUNTS = ("total_requests", "successful_requests", "failed_requests")
TOKENS = ("total_tokens", "total_prompt_tokens", "total_completion_tokens")


@pytest.fixture
async def client(place: Place) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(place.url, model="llama3.2") as client:
        yield client


def counted(client: AsyncClient) -> tuple[int, ...]:
    stats: Any = client.usage_stats
    assert set(stats) == {*COUNTS, *TOKENS}
    return tuple(stats[name] for name in COUNTS)


# Usage statistics


async def test_request_counting_total_successful_failed(client: AsyncClient) -> None:
    await client.generate(prompt="Hello", max_tokens=2)
    _ = [chunk async for chunk in client.stream_chat(messages=MESSAGES, max_tokens=2)]
    await client.make_post_request_ollama("/api/chat", {"model": "llama3.2", "messages": MESSAGES})
    await client.embed("Hello", "nomic-embed-text")
    with pytest.raises(NotFoundError):
        await client.generate(model="nosuch", prompt="Hello")
    assert counted(client) == (5, 4, 1)


async def test_those_that_the_queue_and_the_breaker_refuse_count_as_failed() -> None:
    async with switched() as (client, _, ollama):
        client.max_concurrent_requests, client.queue_size, ollama.held = 1, 0, []
        held = asyncio.create_task(client.generate(prompt="Why?"))
        await ollama.until_held(1)
        with pytest.raises(QueueFullError):
            await client.generate(prompt="Why?")
        assert counted(client) == (1, 0, 1)
        ollama.held[0].set()
        await held
        client.failure_threshold, ollama.held, ollama.reply = 1, None, FAILS
        with pytest.raises(CorralError):
            await client.generate(prompt="Why?")
        with pytest.raises(CircuitOpenError):
            await client.generate(prompt="Why?")
        assert counted(client) == (4, 1, 3)


async def test_token_usage_tracking_prompt_completion_total(client: AsyncClient) -> None:
    answers: list[Any] = [
        await client.chat(messages=MESSAGES, max_tokens=3),
        await client.generate(prompt="Hello", max_tokens=4),
        [chunk async for chunk in client.stream_chat(messages=MESSAGES, max_tokens=5)][-1],
    ]
    stats = client.usage_stats
    assert stats["total_completion_tokens"] == 12
    usages = [answer["usage"] for answer in answers]
    assert stats["total_tokens"] == sum(usage["total_tokens"] for usage in usages)
    assert stats["total_prompt_tokens"] == sum(usage["prompt_tokens"] for usage in usages) > 0
    assert stats["total_tokens"] == stats["total_prompt_tokens"] + 12


async def test_thread_safe_statistics_collection(bare: Place) -> None:
    """Whoever looks while others' calls end sees figures that fit together."""

    def ask(number: int) -> list[UsageStats]:
        seen = []
        for _ in range(4):
            asked.generate(prompt=f"{number}", max_tokens=2)
            seen += [asked.usage_stats for _ in range(20)]
        return seen

    with threaded(bare, queue_size=100) as asked, ThreadPoolExecutor(10) as threads:
        looks = await asyncio.gather(*(asyncio.wrap_future(threads.submit(ask, number)) for number in range(10)))
        assert asked.usage_stats["total_completion_tokens"] == 80
    for stats in (each for seen in looks for each in seen):
        assert stats["total_requests"] == stats["successful_requests"] + stats["failed_requests"]
        assert stats["total_tokens"] == stats["total_prompt_tokens"] + stats["total_completion_tokens"]
        assert stats["total_completion_tokens"] == 2 * stats["successful_requests"]


async def test_reset_capability_for_testing_and_monitoring(client: AsyncClient) -> None:
    await client.generate(prompt="Hello", max_tokens=2)
    before = client.usage_stats
    client.reset_usage_stats()
    assert set(client.usage_stats.values()) == {0}
    assert before["total_requests"] == 1
    # It is a copy: nobody writes into what is counted.
    before = client.usage_stats
    before["total_requests"] = 99
    await client.generate(prompt="Hello", max_tokens=2)
    assert counted(client) == (1, 1, 0)


# Parameter compatibility


async def test_support_for_both_model_and_model_name_parameters(client: AsyncClient) -> None:
    client.default_model = "nosuch"
    for model_name, model in ((None, "llama3.2"), ("llama3.2", None), ("llama3.2", "llama3.2")):
        answer = await client.chat(model_name, model, MESSAGES, 2)
        assert answer["model"] == "llama3.2"
        chunks = [chunk async for chunk in client.stream_chat(model_name, model, MESSAGES, 2)]
        assert {chunk["model"] for chunk in chunks} == {"llama3.2"}
    with pytest.raises(ConfigurationError, match="model_name"):
        await client.chat(model="llama3.2", model_name="other", messages=MESSAGES)
    with pytest.raises(ConfigurationError, match="model_name"):
        client.stream_chat(model="llama3.2", model_name="other", messages=MESSAGES)


async def test_support_for_standardized_parameters_across_different_api_backends(
    client: AsyncClient, place: Place
) -> None:
    given: dict[str, Any] = {
        "top_p": 0.9,
        "seed": 7,
        "stop": ["\n\n"],
        "presence_penalty": 0.5,
        "num_ctx": 8192,
        "top_k": 3,
    }
    for ask in (client.generate, client.completions):
        await ask("llama3.2", "Hello", 2, 0.5, None, **given)
        assert json.loads(place.ollama.observations.seen[-1].body)["options"] == {
            **given,
            "num_predict": 2,
            "temperature": 0.5,
        }
    await client.chat(
        messages=MESSAGES, options={"top_p": 0.1, "num_predict": 99, "mirostat": 1}, max_tokens=2, **given
    )
    options = json.loads(place.ollama.observations.seen[-1].body)["options"]
    assert options == {**given, "num_predict": 2, "mirostat": 1}


async def test_proper_parameter_conversion_to_ollamas_api_format(client: AsyncClient, place: Place) -> None:
    def sent() -> dict[str, Any]:
        seen = place.ollama.observations.seen[-1]
        assert seen.endpoint == "/api/chat"
        body: dict[str, Any] = json.loads(seen.body)
        del body["stream"]
        return body

    wanted = {"model": "llama3.2", "messages": MESSAGES, "options": {"num_predict": 3, "temperature": 0.7}}
    await client.chat(messages=MESSAGES, max_tokens=3, temperature=0.7)
    assert sent() == wanted
    _ = [chunk async for chunk in client.stream_chat(messages=MESSAGES, max_tokens=3, temperature=0.7)]
    assert sent() == wanted
    await client.generate("llama3.2", "Hello, how are you?", 3, 0.7)
    assert sent() == wanted
    fields: dict[str, Any] = {"format": "json", "keep_alive": "5m", "system": "Be brief."}
    await client.completions(prompt="Hello", **fields)
    del fields["system"]
    system = {"role": "system", "content": "Be brief."}
    assert sent() == {"model": "llama3.2", "messages": [system, {"role": "user", "content": "Hello"}], **fields}


async def test_support_for_request_ids_and_tracking(
    client: AsyncClient, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "corral")
    answer = await client.chat(messages=MESSAGES, max_tokens=2, request_id="test_123")
    assert answer["request_id"] == "test_123"
    chunks = [chunk async for chunk in client.stream_chat(messages=MESSAGES, max_tokens=2, request_id="test_123")]
    assert chunks[-1]["request_id"] == "test_123"
    with pytest.raises(NotFoundError) as failed:
        await client.generate(model="nosuch", prompt="Hello", request_id="test_123")
    assert failed.value.request_id == "test_123"
    assert len({(await client.generate(prompt="Hello", max_tokens=1))["request_id"] for _ in range(3)}) == 3
    if client.server == "corral":
        job = await client.job(answer["job_id"]).status()
        assert job["request_id"] == "test_123"
    client.default_model = "nosuch"
    assert await client.test_ollama_endpoint() is False
    lines = [record.getMessage() for record in caplog.records if record.name == "corral"]
    assert [line for line in lines if not line.startswith("[")] == []
    assert [line for line in lines if "test_123" in line]
    assert [line for line in lines if "the test of" in line]


async def test_a_request_id_is_on_every_request_of_its_call_and_in_every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "corral")
    async with client_of(refusal("503 x"), refusal("503 x"), whole(ANSWER)) as (client, _, posts):
        await client.generate(prompt="Why?", request_id="test_123")
        assert [post.headers["X-Request-ID"] for post in posts] == ["test_123"] * 3
    lines = [record.getMessage() for record in caplog.records if record.name == "corral"]
    assert len([line for line in lines if "again in" in line]) == 2
    assert all(line.startswith("[test_123] ") for line in lines)
