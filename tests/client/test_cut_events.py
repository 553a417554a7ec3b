"""Streams that are cut off where nothing tells it: a job's are followed on, of others it is told; none simply ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corral import AsyncClient, ConnectionFailedError, StreamBrokenError
from tests.client.test_giving_up import HEALTH, MESSAGES
from tests.client.test_retries import NO_HEALTH
from tests.support.client_time import OwnTime
from tests.support.raw_server import Exchange, raw_server, whole

JOB = {"id": "j1", "status": "completed", "model": "m", "result": "one two"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
"""Without a length or chunks a reply that is cut off looks like one that is whole."""
NEWS = [
    b'event: status\ndata: {"id":"j1","status":"processing","model":"m"}\n\n',
    b'event: output\nid: 1.3\ndata: {"kind":"text","data":"one"}\n\n',
    b'event: output\nid: 1.7\ndata: {"kind":"text","data":" two"}\n\n',
    b'event: done\ndata: {"status":"completed"}\n\n',
]
BEHIND = {None: 0, "1.3": 2, "1.7": 3}


class Corral:
    """A job's events, of which the first connection gets so many bytes."""

    def __init__(self) -> None:
        self.cut, self.times = 0, 0

    async def answer(self, exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.send(HEALTH)
        elif exchange.path.endswith("/stream"):
            everything = HEAD + b"".join(NEWS[BEHIND[exchange.headers.get("Last-Event-ID")] :])
            await exchange.send(everything[: self.cut] if self.times == 0 else everything)
            self.times += 1
            exchange.writer.close()
        elif exchange.method == "POST":
            await exchange.send(whole(b'{"id": "j1", "status": "queued"}', status="202 Accepted"))
        else:
            await exchange.send(whole(json.dumps(JOB).encode()))


async def test_a_jobs_events_that_are_cut_at_any_byte_go_on_where_they_were() -> None:
    corral = Corral()
    async with raw_server(corral.answer) as server, AsyncClient(server.url, model="m") as client:
        OwnTime(client)
        client.failure_threshold = 10**6
        for cut in (0, 20, *range(len(HEAD) - 1, len(HEAD + b"".join(NEWS)))):
            corral.cut, corral.times = cut, 0
            if cut % 8:
                events = [event async for event in client.job("j1").stream()]
                assert events[-1]["type"] == "done", cut
                text = "".join(event.get("text", "") for event in events)
            else:
                chunks = [chunk async for chunk in client.stream_chat(messages=MESSAGES)]
                assert chunks[-1]["done"], cut
                text = "".join(chunk["text"] for chunk in chunks)
            assert (text, corral.times) == ("one two", 2), cut


def openai(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


def anthropic(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "delta": {"text": text}}


def response(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": text}


def events(*parts: Any) -> bytes:
    data = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts)
    return b"".join(b"data: " + each + b"\n\n" for each in data)


def lines(*parts: Any) -> bytes:
    return b"".join(json.dumps(part).encode() + b"\n" for part in parts)


STREAMS: dict[str, bytes] = {
    "/v1/chat/completions": HEAD + events(openai("one"), openai(" two"), b"[DONE]"),
    "/v1/messages": HEAD + events(anthropic("one"), {"type": "message_stop"}),
    "/v1/responses": HEAD + events(response("one"), {"type": "response.completed"}),
    "/api/pull": HEAD.replace(b"text/event-stream", b"application/x-ndjson")
    + lines({"status": "x", "response": "one"}, {"status": "success"}),
    "/api/chat?x=1": HEAD.replace(b"text/event-stream", b"application/x-ndjson")
    + lines(
        {"message": {"content": "one"}}, {"message": {"content": " two"}}, {"message": {"content": ""}, "done": True}
    ),
}


@pytest.mark.parametrize("path", STREAMS)
async def test_a_reply_that_is_cut_at_any_byte_is_never_taken_for_whole(path: str) -> None:
    sent = b""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(NO_HEALTH if exchange.path == "/health" else sent)
        if exchange.path != "/health":
            exchange.writer.close()

    whole_ones, everything = 0, STREAMS[path]
    async with raw_server(answer) as server, AsyncClient(server.url) as client:
        OwnTime(client)
        client.max_retries, client.failure_threshold = 0, 10**6
        for cut in range(len(HEAD), len(everything) + 1):
            sent, found, text = everything[:cut], [], ""
            try:
                async for part in await client.make_post_request_ollama(path, {}, stream=True):
                    found += [part]
                whole_ones += 1
            except StreamBrokenError as error:
                text = error.text
                assert text == ("", "one", "one two")[len(found)], cut
            except ConnectionFailedError:
                assert not found
        # Its last byte is a line feed, which tells nothing new where lines count.
        assert whole_ones == (1 if b"event-stream" in everything else 2)
