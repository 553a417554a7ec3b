"""The API key and the caller's headers are sent, and shown nowhere: in no message, cause, log line or pickle."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from corral import AsyncClient, AuthenticationError, ConfigurationError, CorralError, StreamBrokenError
from tests.client.test_retries import NO_HEALTH
from tests.client.test_streams import MESSAGES, SHORT, streamed
from tests.support.client_time import OwnTime
from tests.support.raw_server import END, STREAM, Exchange, chunk, raw_server, whole

HEADERS = {"X-Own": "xyzzy-value"}
FAILURES: dict[str, bytes] = {
    "refused": whole(b'{"error": "who are you"}', status="401 Unauthorized"),
    "no JSON": whole(b"<html>", content_type="text/html"),
    "half": whole(SHORT)[:-9],
    "cut": STREAM + chunk(SHORT[:20]),
    "no HTTP": b"what?\r\n\r\n",
    "a broken header": b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_no_error_and_no_log_line_shows_what_a_header_says(
    failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.send(NO_HEALTH)
            return
        assert exchange.headers["Authorization"] == "Bearer sk-xyzzy"
        await exchange.send(FAILURES[failure])
        exchange.writer.close()

    with caplog.at_level(logging.DEBUG):
        async with (
            raw_server(answer) as server,
            AsyncClient(server.url, api_key="sk-xyzzy", headers=HEADERS, model="m") as client,
        ):
            OwnTime(client)
            client.max_retries = 1
            said = [repr(client)]
            for ask in ASKED:
                with pytest.raises(CorralError) as raised:
                    await ask(client)
                said += traceback.format_exception(raised.value)
                said += [repr(raised.value), pickle.dumps(raised.value).decode("latin-1")]
    assert "xyzzy" not in "".join(said) + caplog.text


async def _streamed(client: AsyncClient) -> None:
    async for _ in client.stream_chat(messages=MESSAGES):
        pass


ASKED: list[Callable[[AsyncClient], Any]] = [
    lambda client: client.generate(prompt="x"),
    lambda client: client.list_models(),
    _streamed,
]


async def test_what_http_does_not_allow_is_told_without_its_words() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(streamed(SHORT))

    async with raw_server(answer) as server, AsyncClient(server.url, model="m") as client:
        # What a caller gives is looked at before; whatever may come by it is not shown either.
        client._parts.server.wire._headers["X-Own"] = "xyzzy\nvalue"
        with pytest.raises(ConfigurationError) as refused:
            await client.generate(prompt="x")
        assert "xyzzy" not in "".join(traceback.format_exception(refused.value))


async def test_a_key_that_a_server_repeats_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    words = b'{"error": "Bearer sk-xyzzy: is no key (sk-xyzzy-2, sk-xyzzy)"}'
    replies = {
        "/api/chat": whole(words, status="400 Bad Request"),
        "/api/generate": STREAM + chunk(SHORT[: SHORT.index(b"\n") + 1]) + chunk(words + b"\n") + END,
    }

    async def answer(exchange: Exchange) -> None:
        await exchange.send(replies.get(exchange.path, NO_HEALTH))

    async with raw_server(answer) as server, AsyncClient(server.url, api_key="sk-xyzzy", model="m") as client:
        with caplog.at_level(logging.DEBUG), pytest.raises(CorralError) as refused:
            await client.generate(prompt="x")
        assert str(refused.value) == "Bearer …: is no key (sk-xyzzy-2, …) (HTTP 400)"
        with caplog.at_level(logging.DEBUG), pytest.raises(StreamBrokenError) as broken:
            async for _ in await client.make_post_request_ollama("/api/generate", {}, True):
                pass
    said = caplog.text + "".join(traceback.format_exception(broken.value))
    assert "is no key" in said
    assert "xyzzy" not in said.replace("sk-xyzzy-2", "")


async def test_a_key_that_is_repeated_where_it_is_asked_who_the_server_is_is_not_shown() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(whole(b'{"error": "sk-xyzzy is no key"}', status="401 Unauthorized"))

    async with raw_server(answer) as server, AsyncClient(server.url, api_key="sk-xyzzy", model="m") as client:
        with pytest.raises(AuthenticationError) as refused:
            await client.generate(prompt="x")
        assert "… is no key" in str(refused.value) == f"{refused.value.message} (HTTP 401)"
