"""Wrong values and garbled replies: whatever comes, it ends as an error of the tree, or does no harm."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from corral import AsyncClient, Client, ConfigurationError, ConnectionFailedError
from tests.client.test_retries import NO_HEALTH
from tests.support.client_time import OwnTime
from tests.support.raw_server import Exchange, raw_server, whole

ODD_COUNTS = ['"12"', "-3", "true", "[1]", "{}", "1.5"]
FAR = "1" + "0" * 400


@asynccontextmanager
async def client_of(reply: bytes, health: bytes = NO_HEALTH) -> AsyncIterator[AsyncClient]:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(health if exchange.path == "/health" else whole(reply))

    async with raw_server(answer) as server, AsyncClient(server.url, model="m") as client:
        client.max_retries = 0
        OwnTime(client)
        yield client


@pytest.mark.parametrize("count", ODD_COUNTS)
async def test_a_count_that_is_none_counts_nothing(count: str) -> None:
    counts = f'"eval_count":{count},"prompt_eval_count":2,"eval_duration":{FAR}'
    reply = f'{{"message":{{"content":"yes"}},"done":true,{counts}}}'
    async with client_of(reply.encode()) as client:
        answer = await client.generate(prompt="Why?")
        assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 0, "total_tokens": 2}
        assert "timings" not in answer
        chunks = [chunk async for chunk in client.stream_chat(messages=[{"role": "user", "content": "Why?"}])]
        assert chunks[-1]["usage"]["total_tokens"] == 2
        assert client.usage_stats["total_tokens"] == 4
    reply = f'{{"usage":{{"prompt_tokens":{count},"completion_tokens":1}}}}'
    async with client_of(reply.encode()) as client:
        await client.make_post_request_ollama("/v1/chat/completions", {})
        assert client.usage_stats["total_tokens"] == 1


async def test_a_health_that_is_nested_without_end_is_an_ollamas() -> None:
    deep = whole(b"[" * 200_000)
    async with client_of(b'{"models":[]}', deep) as client:
        with pytest.raises(ConnectionFailedError):
            await client.generate(prompt="Why?")
        assert client.server == "ollama"


@pytest.mark.parametrize("reply", [b"[]", b"1", b"null", b'"x"', b'{"models":5,"embeddings":5}'])
async def test_a_reply_of_another_shape_counts_as_broken(reply: bytes) -> None:
    async with client_of(reply) as client:
        with pytest.raises(ConnectionFailedError):
            await client.embed("x")
        with pytest.raises(ConnectionFailedError):
            await client.list_models()


MESSAGES = [{"role": "user", "content": "x"}]
WRONG: list[Callable[[Any], Any]] = [
    lambda client: client.chat(messages=5),
    lambda client: client.chat(messages=b"hello"),
    lambda client: client.chat(messages=[5]),
    lambda client: client.chat(messages=MESSAGES, options=5),
    lambda client: client.chat(messages=MESSAGES, priority=[]),
    lambda client: client.chat(messages=MESSAGES, max_wait_seconds="x"),
    lambda client: client.chat(messages=MESSAGES, request_id=5),
    lambda client: client.generate(5, "x"),
    lambda client: client.generate(prompt=5),
    lambda client: client.embed("x", 5),
    lambda client: client("embed"),
    lambda client: client.submit(5),
    lambda client: client.submit("x", model=5),
    lambda client: client.submit("x", tools=object()),
    lambda client: client.cancel_all(status=5),
    lambda client: client.job(5).status(),
    lambda client: client.job("\ud800").status(),
    lambda client: client.make_post_request_ollama("/api/chat", {"a": object()}),
    lambda client: client.make_post_request_ollama("/api/chat", {(1,): 2}),
    lambda client: client.embed(5),
    lambda client: client.embed(None),
    lambda client: client.submit(messages=5),
    lambda client: client.submit(messages="hello"),
    lambda client: client.submit(messages=[]),
    lambda client: client.submit("x", expires_in_seconds="30"),
    lambda client: client.generate(prompt="x", raw=True, expires_in_seconds="30"),
    lambda client: client.generate(prompt="x", expires_in_seconds=0),
    lambda client: client.generate(prompt="x", max_wait_seconds=10**400),
    lambda client: list(client.map(5)),
    lambda client: list(client.map("hello")),
    lambda client: list(client.map([5])),
    lambda client: list(client.map([None])),
    lambda client: list(client.job("a").stream(5)),
    lambda client: list(client.job("a").stream("a\nb")),
    lambda client: client.job("a").wait("soon"),
    lambda client: client.job("a").result(float("nan")),
    lambda client: client.make_post_request_ollama(5, {}),
    lambda client: client.make_post_request_ollama("/api/chat", 5),
    lambda client: client.make_post_request_ollama("/api/chat", [1], True),
    *(
        lambda client, name=name: setattr(client, name, 10**400)
        for name in ("initial_retry_delay", "backoff_factor", "max_retry_delay", "circuit_timeout", "timeout")
    ),
]


@pytest.mark.parametrize("ask", WRONG)
def test_a_value_of_a_wrong_type_is_refused_before_anything_is_sent(ask: Callable[[Any], Any]) -> None:
    with Client("http://localhost:1", model="m") as client:
        with pytest.raises(ConfigurationError):
            ask(client)
        assert client.server is None


GIVEN: list[dict[str, Any]] = [
    *({name: value} for name in ("metadata", "resources", "headers") for value in (5, "ab", [1])),
    *({"headers": {name: "x"}} for name in (1, "", "a b", "a\n", "Content-Length", "transfer-encoding")),
    *({"headers": {"X-Own": value}} for value in (1, None, "sk-\nsecret", " sk-secret", "sk-secret\u2603")),
    *({"api_key": value} for value in (5, b"sk-secret", " ", "sk-secret ", "sk-\nsecret")),
    *({"metadata": {name: [1]}} for name in ("api_key", "timeout", "queue_size", "ollama_model", "ollama_api_url")),
    *({"timeout": "x"}, {"model": 5}, {"transport": 5}, {"base_url": 5}, {"metadata": ["sk-secret"]}),
]


@pytest.mark.parametrize("given", GIVEN)
def test_what_a_constructor_cannot_use_is_refused_and_nothing_secret_is_shown(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Client(**given)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None or refused.value.__suppress_context__


def test_values_that_are_no_json_are_told_when_they_are_to_be_sent() -> None:
    odd: list[dict[str, Any]] = [{"tools": object()}, {"temperature": float("nan")}, {"images": [b"x"]}]
    ollama = httpx2.MockTransport(lambda _: httpx2.Response(404))
    with Client("http://localhost:1", model="m", transport=ollama) as client:
        for keywords in odd:
            with pytest.raises(ConfigurationError, match="JSON"):
                client.generate(prompt="x", **keywords)
        with pytest.raises(ConfigurationError, match="sent"):
            client.make_post_request_ollama("/api/\ud800", {})
        with pytest.raises(ConfigurationError, match="sent"):
            list(client.make_post_request_ollama("/api/chat\r\n", {}, stream=True))


def test_messages_may_come_from_a_generator() -> None:
    with Client("http://localhost:1", model="m") as client:
        client.max_retries = 0
        given: Any = (one for one in MESSAGES)
        with pytest.raises(ConnectionFailedError):
            client.chat(messages=given)
