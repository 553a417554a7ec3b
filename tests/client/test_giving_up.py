"""Calls that are given up leave no job behind, however they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from corral import AsyncClient, CorralError
from tests.client.test_retries import refusal
from tests.support.client_time import OwnTime
from tests.support.raw_server import Exchange, RawServer, raw_server, whole

MESSAGES = [{"role": "user", "content": "Why?"}]
HEALTH = whole(json.dumps({"service": "corral", "status": "ok"}).encode())
ACCEPTED = whole(json.dumps({"id": "j1", "status": "queued"}).encode(), status="202 Accepted")
GONE = b""


class Corral:
    """It answers submissions with these replies, the last again and again; a job of it never ends."""

    def __init__(self, *replies: bytes) -> None:
        self._replies = list(replies)
        self.is_asked, self.is_called_off, self.may_answer = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(self, exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.send(HEALTH)
        elif exchange.method == "DELETE":
            self.is_called_off.set()
            await self.may_answer.wait()
            await exchange.send(whole(b"{}"))
        elif exchange.method == "POST":
            reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
            await exchange.send(reply)
            if reply == GONE:
                exchange.writer.close()
        elif exchange.path == "/api/tags":
            await exchange.send(whole(b"{}"))
        else:
            self.is_asked.set()
            await exchange.until_gone()


@asynccontextmanager
async def client_of(corral: Corral) -> AsyncIterator[tuple[AsyncClient, RawServer]]:
    async with raw_server(corral.answer) as server, AsyncClient(server.url, model="m") as client:
        OwnTime(client)
        client.max_retries = 0
        yield client, server


UNKNOWN = {
    "gone": GONE,
    "500": refusal("500 Internal Server Error"),
    "502": refusal("502 Bad Gateway"),
    "no JSON": whole(b"{"),
    "no object": whole(b"[]"),
}


@pytest.mark.parametrize("way", ["chat", "submit"])
@pytest.mark.parametrize("reply", UNKNOWN.values(), ids=UNKNOWN)
async def test_a_submission_whose_outcome_is_unknown_leaves_no_job(reply: bytes, way: str) -> None:
    corral = Corral(reply, ACCEPTED)
    corral.may_answer.set()
    async with client_of(corral) as (client, server):
        with pytest.raises(CorralError):
            await getattr(client, way)(messages=MESSAGES)
        posts = [one for one in server.requests if one.method == "POST"]
        assert len({(one.body, one.headers["Idempotency-Key"]) for one in posts}) == 1
        assert [(one.method, one.path) for one in server.requests[1:]] == [
            ("POST", "/api/v1/prompt"),
            ("POST", "/api/v1/prompt"),
            ("DELETE", "/api/v1/prompt/j1"),
        ]


@pytest.mark.parametrize("way", ["chat", "submit"])
async def test_a_submission_that_was_refused_or_is_to_be_found_again_is_left_alone(way: str) -> None:
    for reply, key in ((refusal("400 Bad Request"), None), (refusal("429 Too Many Requests"), None), (GONE, "mine")):
        async with client_of(Corral(reply, ACCEPTED)) as (client, server):
            with pytest.raises(CorralError):
                await getattr(client, way)(messages=MESSAGES, idempotency_key=key)
            assert [(one.method, one.path) for one in server.requests[1:]] == [("POST", "/api/v1/prompt")]


async def test_a_call_that_is_cancelled_again_and_again_still_calls_its_job_off() -> None:
    corral = Corral(ACCEPTED)
    async with client_of(corral) as (client, server):
        call = asyncio.create_task(client.chat(messages=MESSAGES))
        await corral.is_asked.wait()
        call.cancel()
        await corral.is_called_off.wait()
        for _ in range(3):
            call.cancel()
            # As many turns of the loop as a request takes.
            await client.list_models()
            assert not call.done()
        corral.may_answer.set()
        await asyncio.wait((call,))
        assert call.cancelled()
        assert [one.method for one in server.requests].count("DELETE") == 1


async def test_a_call_that_is_cancelled_where_its_loop_ends_calls_its_job_off() -> None:
    corral = Corral(ACCEPTED)
    corral.may_answer.set()
    async with raw_server(corral.answer) as server:
        asked = asyncio.get_running_loop()

        async def leave() -> None:
            call = asyncio.create_task(AsyncClient(server.url, model="m").chat(messages=MESSAGES))
            waiting = asyncio.run_coroutine_threadsafe(corral.is_asked.wait(), asked)
            await asyncio.wrap_future(waiting)
            call.cancel()

        await asyncio.to_thread(asyncio.run, leave())
        assert corral.is_called_off.is_set()
