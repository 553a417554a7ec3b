"""Streams: whole, broken, given up; and what is never seen in them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from corral import AsyncClient, ConfigurationError, ConnectionFailedError, CorralError, ServerError, StreamBrokenError
from tests.client.test_retries import NO_HEALTH, refusal
from tests.support.client_time import OwnTime
from tests.support.raw_server import END, STREAM, Exchange, RawServer, chunk, raw_server, whole

MESSAGES = [{"role": "user", "content": "Why?"}]
ODD = ["a\u0085b", "c\u2028d", "e\u2029f\x0b\x0c\x1c", "naïve 👩‍🚀", ""]


def line(text: str, **fields: Any) -> bytes:
    part = {"model": "m", "message": {"role": "assistant", "content": text}, "done": False, **fields}
    return json.dumps(part, ensure_ascii=False).encode() + b"\n"


LAST = line("", done=True, done_reason="stop", prompt_eval_count=2, eval_count=3)
SHORT = line("one") + line(" two") + LAST


@asynccontextmanager
async def ollama_that_sends(*given_replies: tuple[bytes, bool]) -> AsyncIterator[tuple[AsyncClient, RawServer]]:
    """It gives these replies, the last again and again; those that are not whole end with the connection."""
    async with ollama_that_sends_of(list(given_replies)) as both:
        yield both


@asynccontextmanager
async def ollama_that_sends_of(replies: list[tuple[bytes, bool]]) -> AsyncIterator[tuple[AsyncClient, RawServer]]:
    """The same, of a list that the test may change."""
    given = 0

    async def answer(exchange: Exchange) -> None:
        nonlocal given
        if exchange.path == "/health":
            await exchange.send(NO_HEALTH)
            return
        reply, is_whole = replies[min(given, len(replies) - 1)]
        given += 1
        await exchange.send(reply)
        if not is_whole:
            exchange.writer.close()

    async with raw_server(answer) as server, AsyncClient(server.url, model="m") as client:
        OwnTime(client)
        client.failure_threshold = 1000
        yield client, server


def streamed(*pieces: bytes) -> bytes:
    return STREAM + b"".join(chunk(piece) for piece in pieces) + END


async def read(client: AsyncClient, **keywords: Any) -> tuple[list[Any], CorralError | None]:
    """The chunks, and the error that ended them."""
    chunks: list[Any] = []
    try:
        async for each in client.stream_chat(messages=MESSAGES, **keywords):
            chunks += [each]
    except CorralError as error:
        return chunks, error
    return chunks, None


async def test_a_line_ends_at_a_line_feed_only_and_no_character_comes_in_pieces() -> None:
    data = b"".join(line(text) for text in ODD) + LAST
    for size in (1, 2, 3, 5, len(data)):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        async with ollama_that_sends((streamed(*pieces), True)) as (client, _):
            chunks, error = await read(client)
        assert error is None
        # The empty one is no news.
        assert [each["text"] for each in chunks] == [*ODD[:-1], ""]
        assert chunks[-1] == {
            "text": "",
            "done": True,
            "model": "m",
            "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
            "done_reason": "stop",
            "request_id": chunks[-1]["request_id"],
        }


async def test_corrals_events_are_whole_too_whatever_stands_in_them() -> None:
    job = {"id": "j", "status": "completed", "model": "m", "prompt": "p"}
    text = "".join(ODD) + "x" * 2_000_000
    events = (("status", job), ("output", {"kind": "text", "data": text}), ("done", {"status": "completed"}))
    sent = "".join(
        f"id: 1.{number}\nevent: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
        for number, (name, data) in enumerate(events)
    ).encode()
    replies = {
        "/health": whole(b'{"service":"corral"}'),
        "/api/v1/prompt": whole(b'{"id":"j","status":"queued","position":1}', status="202 Accepted"),
        "/api/v1/prompt/j/stream": STREAM.replace(b"application/x-ndjson", b"text/event-stream")
        + b"".join(chunk(sent[at : at + 70_001]) for at in range(0, len(sent), 70_001))
        + END,
    }

    async def answer(exchange: Exchange) -> None:
        await exchange.send(replies.get(exchange.path.partition("?")[0]) or whole(json.dumps(job).encode()))

    async with raw_server(answer) as server, AsyncClient(server.url) as client:
        chunks, error = await read(client)
    assert (error, len(chunks), chunks[0]["text"] == text, chunks[-1]["done"]) == (None, 2, True, True)


async def test_a_line_of_two_megabytes_is_a_line() -> None:
    text = "x" * 2_000_000
    async with ollama_that_sends((streamed(line(text), LAST), True)) as (client, _):
        chunks, error = await read(client)
        assert (error, chunks[0]["text"] == text) == (None, True)
        reply = await client.make_post_request_ollama(f"{client.ollama_api_url}/chat", {"model": "m"}, stream=True)
        assert [len(part["message"]["content"]) async for part in reply] == [2_000_000, 0]


async def test_thinking_and_tool_calls_come_as_they_are() -> None:
    call = [{"function": {"name": "weather", "arguments": {"city": "Bonn"}}}]
    thought = {"role": "assistant", "content": "", "thinking": "hm"}
    data = streamed(line("", message=thought), line("", message={"content": "", "tool_calls": call}), LAST)
    async with ollama_that_sends((data, True)) as (client, _):
        chunks, _ = await read(client)
    assert (chunks[0]["thinking"], chunks[1]["tool_calls"], len(chunks)) == ("hm", call, 3)


@pytest.mark.parametrize("is_chunked", [True, False], ids=["in chunks", "until the end of the connection"])
async def test_a_stream_that_is_cut_at_any_byte_is_whole_or_an_error_and_never_half(is_chunked: bool) -> None:
    head = (
        STREAM if is_chunked else b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"
    )
    everything = head + (chunk(SHORT) + END if is_chunked else SHORT)
    replies = [(b"", False)]
    async with ollama_that_sends_of(replies) as (client, server):
        client.max_retries = 1
        for cut in range(len(everything)):
            replies[0] = (everything[:cut], False)
            server.requests.clear()
            chunks, error = await read(client)
            posts = [one for one in server.requests if one.path == "/api/chat"]
            text = "".join(each["text"] for each in chunks)
            if chunks and chunks[-1]["done"]:
                assert text == "one two"
                continue
            # What was not handed out is asked for again, and nothing else.
            assert len(posts) == (1 if chunks else 2), cut
            if chunks:
                assert isinstance(error, StreamBrokenError)
                assert (error.text, error.attempts) == (text, 1)
            else:
                assert isinstance(error, ConnectionFailedError | StreamBrokenError)
                assert error.attempts == 2


async def test_a_stream_that_fails_before_its_first_word_is_asked_for_again() -> None:
    replies = [
        (b"", False),
        (streamed(), True),
        (streamed(b'{"error":"an error was encountered"}\n'), True),
        (refusal("503 x"), True),
        (streamed(SHORT), True),
    ]
    async with ollama_that_sends(*replies) as (client, server):
        chunks, error = await read(client)
        assert (error, "".join(each["text"] for each in chunks)) == (None, "one two")
        posts = [one for one in server.requests if one.path == "/api/chat"]
        assert len({(one.body, one.headers["Idempotency-Key"]) for one in posts}) == 1
        assert len(posts) == 5


async def test_an_error_in_the_middle_breaks_the_stream_and_one_at_the_beginning_is_the_servers() -> None:
    failure = b'{"error":"an error was encountered"}\n'
    async with ollama_that_sends((streamed(line("one"), failure), True), (streamed(failure), True)) as (client, _):
        client.max_retries = 0
        chunks, error = await read(client, request_id="mine")
        assert [each["text"] for each in chunks] == ["one"]
        assert isinstance(error, StreamBrokenError)
        assert (error.text, error.request_id) == ("one", "mine")
        assert "an error was encountered" in str(error)
        assert isinstance((await read(client))[1], ServerError)
        assert client.usage_stats["failed_requests"] == client.usage_stats["total_requests"] == 2


async def test_a_stream_holds_its_place_until_it_ends_is_closed_or_is_garbage() -> None:
    async with ollama_that_sends((STREAM + chunk(line("one")), True)) as (client, _):
        client.max_concurrent_requests, client.queue_size = 1, 0
        stream = client.stream_chat(messages=MESSAGES)
        assert client.active_requests == 0
        await anext(stream)
        assert client.active_requests == 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert client.active_requests == 0
        stream = client.stream_chat(messages=MESSAGES)
        await anext(stream)
        del stream
        client.queue_size = 1
        # It waits until the place is free.
        async for chunk_ in client.stream_chat(messages=MESSAGES):
            assert chunk_["text"] == "one"
            break
        assert client.usage_stats["failed_requests"] >= 2


async def test_what_a_stream_cannot_be_asked_is_refused_before_anything_is_sent() -> None:
    async with ollama_that_sends((b"", False)) as (client, server):
        for keywords in ({"stream": True}, {"priority": "urgent"}, {"max_wait_seconds": 0}):
            with pytest.raises(ConfigurationError):
                client.stream_chat(messages=MESSAGES, **keywords)
        nothing: list[dict[str, str]] = []
        for messages in (None, nothing):
            with pytest.raises(ConfigurationError):
                client.stream_chat(messages=messages)
        assert server.requests == []
