"""Replies of which a part is missing or something else: each call ends well, or with an error of the tree."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from corral import AsyncClient, ConnectionFailedError, CorralError
from tests.client.test_giving_up import HEALTH, MESSAGES
from tests.support.client_time import OwnTime
from tests.support.raw_server import Exchange, raw_server, whole

ODD: list[Any] = [None, 5, "x", [5], {}]
JOB = {
    "id": "j1",
    "status": "completed",
    "model": "m",
    "result": "yes",
    "prompt_tokens": 1,
    "error": {"code": "c"},
}
CHAT = {"model": "m", "message": {"content": "yes"}, "done": True, "eval_count": 1, "total_duration": 1}
NEWS: list[tuple[str, dict[str, Any]]] = [
    ("status", JOB),
    ("output", {"kind": "text", "data": "yes"}),
    ("output", {"kind": "tool_calls", "data": "[]"}),
    ("restart", {"attempt": 2}),
    ("later", {"something": "new"}),
    ("done", {"status": "completed", "done_reason": "stop"}),
]
REPLIES: dict[str, Any] = {
    "POST /api/v1/prompt": {"id": "j1", "status": "queued"},
    "GET /api/v1/prompt/j1/status": JOB,
    "GET /api/v1/prompt/j1/result": JOB,
    "GET /api/v1/prompt/j1/stream": NEWS,
    "DELETE /api/v1/prompt/j1": JOB,
    "GET /api/v1/prompts": {"prompts": [JOB]},
    "POST /api/v1/prompts/cancel": {"cancelled": 1},
    "GET /api/models": {"models": [], "default": "m"},
    "GET /api/tags": {"models": [{"name": "m"}]},
    "POST /api/chat": CHAT,
    "POST /api/embed": {"embeddings": [[1.0]], "prompt_eval_count": 1},
}


async def everything(items: AsyncIterator[Any]) -> None:
    async for _ in items:
        pass


Ask = Callable[[AsyncClient], Awaitable[Any]]
CALLS: dict[str, list[Ask]] = {
    "POST /api/v1/prompt": [lambda client: client.chat(messages=MESSAGES), lambda client: client.submit("x")],
    "GET /api/v1/prompt/j1/status": [lambda client: client.job("j1").wait()],
    "GET /api/v1/prompt/j1/result": [
        lambda client: client.job("j1").result(),
        lambda client: everything(client.stream_chat(messages=MESSAGES)),
    ],
    "GET /api/v1/prompt/j1/stream": [
        lambda client: everything(client.job("j1").stream()),
        lambda client: everything(client.stream_chat(messages=MESSAGES)),
    ],
    "DELETE /api/v1/prompt/j1": [lambda client: client.job("j1").cancel()],
    "GET /api/v1/prompts": [lambda client: everything(client.jobs())],
    "POST /api/v1/prompts/cancel": [lambda client: client.cancel_all()],
    "GET /api/models": [lambda client: client.generate(prompt="x", logprobs=True)],
    "GET /api/tags": [lambda client: client.list_models()],
    "POST /api/chat": [
        lambda client: client.generate("m", "x", logprobs=True),
        lambda client: everything(client.stream_chat("m", messages=MESSAGES, logprobs=True)),
        lambda client: client.make_post_request_ollama("/api/chat", {}),
    ],
    "POST /api/embed": [lambda client: client.embed("x", "m")],
}


def spoiled(reply: Any, odd: list[Any] = ODD) -> Iterator[Any]:
    """It with each part in its turn missing, or something odd."""
    yield from odd
    places = reply.items() if isinstance(reply, dict) else enumerate(reply) if isinstance(reply, list) else ()
    for place, part in list(places):
        for other in spoiled(part, ODD[:3]):
            changed = copy.copy(reply)
            changed[place] = other
            yield changed
        if isinstance(reply, dict):
            yield {name: value for name, value in reply.items() if name != place}


def spoiled_news() -> Iterator[list[tuple[str, Any]]]:
    for place, (name, data) in enumerate(NEWS):
        # Jobs are spoiled elsewhere.
        for other in ODD if data is JOB else spoiled(data):
            yield [*NEWS[:place], (name, other), *NEWS[place + 1 :]]


def as_sent(route: str, reply: Any) -> bytes:
    if not route.endswith("/stream"):
        return whole(json.dumps(reply).encode())
    text = "".join(f"event: {name}\nid: 1.{at}\ndata: {json.dumps(data)}\n\n" for at, (name, data) in enumerate(reply))
    return whole(text.encode(), content_type="text/event-stream")


class Corral:
    """It answers as it should, but for one reply, which is another until it was given ``times`` times."""

    def __init__(self) -> None:
        self.route, self.odd, self.times = "", b"", 0

    async def answer(self, exchange: Exchange) -> None:
        path, _, query = exchange.path.partition("?")
        route = f"{exchange.method} {path}".replace("/prompt/x", "/prompt/j1")
        if path == "/health":
            await exchange.send(HEALTH)
        elif route == self.route and self.times:
            self.times -= 1
            await exchange.send(self.odd)
        elif "page=2" in query:
            await exchange.send(whole(b'{"prompts": []}'))
        else:
            await exchange.send(as_sent(route, REPLIES[route]))


@asynccontextmanager
async def client_of(corral: Corral) -> AsyncIterator[AsyncClient]:
    async with raw_server(corral.answer) as server, AsyncClient(server.url) as client:
        client.max_retries, client.failure_threshold = 0, 10**9
        OwnTime(client)
        yield client


@pytest.mark.parametrize("route", REPLIES)
async def test_whatever_a_reply_lacks_the_call_ends_within_the_tree(route: str) -> None:
    corral, refused = Corral(), 0
    async with client_of(corral) as client:
        for ask in CALLS[route]:
            await _ended(ask(client))
            for odd in spoiled_news() if route.endswith("/stream") else spoiled(REPLIES[route]):
                client._parts.server._default_model = None
                corral.route, corral.odd, corral.times = route, as_sent(route, odd), 1
                refused += isinstance(await _ended(ask(client)), ConnectionFailedError)
    assert refused >= len(ODD) - 1
    stats = client.usage_stats
    assert stats["total_requests"] == stats["successful_requests"] + stats["failed_requests"]


async def _ended(call: Awaitable[Any]) -> CorralError | None:
    try:
        await call
    except CorralError as error:
        return error
    return None


async def test_news_that_stay_broken_are_not_asked_for_without_an_end() -> None:
    corral = Corral()
    async with client_of(corral) as client:
        client.max_retries = 3
        for text in (b"event: output\ndata: {}\n\n", b"event: output\ndata: {\n\n", b"data: x\n\n"):
            good = b'event: status\ndata: {"id": "j1", "status": "queued", "model": "m"}\n\n'
            odd = whole(good + text, content_type="text/event-stream")
            corral.route, corral.odd, corral.times = "GET /api/v1/prompt/j1/stream", odd, 99
            with pytest.raises(ConnectionFailedError):
                await everything(client.job("j1").stream())
            assert corral.times == 99 - 4


@pytest.mark.parametrize("charset", ["bogus", "hex", "utf-16"])
async def test_events_are_read_as_utf_8_whatever_encoding_a_header_names(charset: str) -> None:
    corral = Corral()
    async with client_of(corral) as client:
        kind = f"text/event-stream; charset={charset}"
        odd = whole('data: {"choices": [{"text": "naïve"}]}\n\ndata: [DONE]\n\n'.encode(), content_type=kind)
        corral.route, corral.odd, corral.times = "POST /api/chat", odd, 1
        stream = await client.make_post_request_ollama("/api/chat", {}, stream=True)
        assert (await anext(stream))["choices"] == [{"text": "naïve"}]
        await stream.aclose()
