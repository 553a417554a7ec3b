"""The opening events of a response are kept back until another event shows whether it is an answer or a refusal, but no
longer than until its caller would have to be sent a sign of life.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.dropin.test_callers import until_listed
from tests.dropin.test_odd_replies import ANSWER, DIED, OPENING, event, failed
from tests.dropin.test_signs_of_life import NONE, RETRIES, reading
from tests.support.drop_in import frame_of
from tests.support.raw_server import END, Exchange, chunk, raw_server, whole
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process
from tests.support.scripted_ollama import MODEL
from tests.support.signs_of_life import OFTEN, Reading

PATH = "/v1/responses"
BODY = {"model": MODEL, "input": "x", "stream": True}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Backend:
    """An Ollama that sends the opening of a response, and its rest only when it is told to."""

    def __init__(self, *rests: bytes, opening: bytes = OPENING) -> None:
        self.may_go_on = asyncio.Event()
        self.is_open = asyncio.Event()
        self.asked = 0
        self._rests = rests
        self._opening = opening

    async def answer(self, exchange: Exchange) -> None:
        if exchange.path != PATH:
            told = {"version": "0.40.0", "models": [{"name": MODEL}] if exchange.path == "/api/tags" else []}
            await exchange.send(whole(json.dumps(told).encode()))
            return
        self.asked += 1
        await exchange.send(HEAD + chunk(self._opening))
        self.is_open.set()
        await self.may_go_on.wait()
        await exchange.send(chunk(self._rests[min(self.asked, len(self._rests)) - 1]) + END)


@asynccontextmanager
async def behind(backend: Backend, options: dict[str, Any]) -> AsyncIterator[RunningService]:
    async with (
        raw_server(backend.answer) as server,
        service_in_process({**options, "backends": [{"name": "raw", "url": server.url}]}) as service,
    ):
        yield service


async def sees_opening(caller: Reading) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not caller.body:
            await caller.sees(signs=1)
    assert caller.body == OPENING


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "once"}], ids=["alone", "with a key"])
async def test_they_are_sent_in_place_of_a_sign_of_life_and_the_stream_is_ollamas(key: dict[str, str]) -> None:
    backend = Backend(ANSWER)
    async with behind(backend, OFTEN) as service, reading(service, PATH, BODY, key) as caller:
        await sees_opening(caller)
        backend.may_go_on.set()
        await caller.ends()
        assert (caller.body, caller.is_whole) == (OPENING + ANSWER, True)
        job = await service.until(caller.response.headers["X-Job-Id"], "completed")
        assert (job["attempt"], backend.asked) == (1, 1)


async def test_what_fails_after_that_is_told_in_the_stream_and_not_tried_again() -> None:
    backend = Backend(failed(DIED))
    async with behind(backend, OFTEN) as service, reading(service, PATH, BODY) as caller:
        await sees_opening(caller)
        backend.may_go_on.set()
        await caller.ends()
        assert caller.body.startswith(OPENING + failed(DIED))
        assert DIED in frame_of(PATH, caller.body.removeprefix(OPENING + failed(DIED)))
        job = await service.until(caller.response.headers["X-Job-Id"], "failed")
        assert (job["attempt"], backend.asked) == (1, 1)


async def test_until_then_nothing_of_them_is_sent() -> None:
    backend = Backend(failed("model 'x' not found"))
    async with behind(backend, {**NONE, "queue.heartbeat_seconds": 3600}) as service:
        asking = asyncio.create_task(service.session.post(PATH, json=BODY))
        await backend.is_open.wait()
        await until_listed(service, "processing")
        assert not asking.done()
        backend.may_go_on.set()
        async with await asking as reply:
            assert await reply.read() == OPENING + failed("model 'x' not found")
        assert (await service.until(reply.headers["X-Job-Id"], "failed"))["error"]["code"] == "model_not_found"


async def test_a_comment_is_no_opening_and_what_fails_after_it_is_tried_again() -> None:
    comment = b": on its way\n\n"
    backend = Backend(failed(DIED), ANSWER, opening=comment)
    async with behind(backend, {**OFTEN, **RETRIES}) as service, reading(service, PATH, BODY) as caller:
        await backend.is_open.wait()
        await caller.sees(signs=2)
        assert caller.body == b""
        backend.may_go_on.set()
        await caller.ends()
        assert (caller.body, caller.is_whole) == (comment + ANSWER, True)
        assert backend.asked == 2


async def test_events_of_a_further_opening_follow_at_once() -> None:
    further = event("response.queued", response={"id": "one"})
    backend = Backend(further + ANSWER)
    async with behind(backend, OFTEN) as service, reading(service, PATH, BODY) as caller:
        await sees_opening(caller)
        backend.may_go_on.set()
        await caller.ends()
        assert (caller.body, caller.is_whole) == (OPENING + further + ANSWER, True)
