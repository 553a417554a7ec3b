"""A streaming caller is sent signs of life whenever nothing else comes; its reply is Ollama's but for these."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.config import Config
from service.simulated import ArmedFault, Fault, FaultKind, SimulatedServer, SimulatedSettings
from tests.dropin.test_callers import newest, until_listed
from tests.dropin.test_differential import SETTINGS
from tests.support.drop_in import STREAMING, WHOLE, alike, seen
from tests.support.raw_server import END, STREAM, Exchange, chunk, raw_server, whole
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process
from tests.support.signs_of_life import OFTEN, Reading, counted_signs

RETRIES = {"retry.initial_seconds": 0.001, "retry.cap_seconds": 0.001, "retry.max_retries": 1}
NONE = {**OFTEN, "retry.max_retries": 0, "queue.hold_busy": False}


@asynccontextmanager
async def reading(
    service: RunningService, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> AsyncIterator[Reading]:
    """A caller that streams, on a connection of its own."""
    sent = {"Accept": "application/x-ndjson", **(headers or {})}
    async with (
        aiohttp.ClientSession(service.url) as session,
        session.post(path, json=body or STREAMING[path], headers=sent) as response,
    ):
        assert response.status == 200
        async with Reading(path, response) as caller:
            yield caller


def stall(service: RunningService, path: str, after_tokens: int = 0, **fields: Any) -> ArmedFault:
    return service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint=path, after_tokens=after_tokens, **fields))


async def ollamas(server: SimulatedServer, path: str) -> bytes:
    async with aiohttp.ClientSession(server.url) as direct:
        return (await seen(direct, "POST", path, STREAMING[path])).body


def test_they_are_sent_by_default_before_any_proxy_gives_up() -> None:
    assert Config().queue.heartbeat_seconds == 15


@pytest.mark.parametrize("after_tokens", [0, 1, 6], ids=["before the first", "after the first", "in the middle"])
@pytest.mark.parametrize("path", STREAMING)
async def test_a_reply_is_ollamas_but_for_its_signs_of_life(path: str, after_tokens: int) -> None:
    async with service_in_process(OFTEN, SETTINGS) as service:
        expected = await ollamas(service.ollama, path)
        stalled = stall(service, path, after_tokens)
        async with reading(service, path) as caller:
            await caller.sees(signs=3)
            assert bool(caller.body) is bool(after_tokens)
            stalled.release()
            await caller.ends()
            assert alike(caller.body) == expected
            assert caller.is_whole
            type_expected = "application/x-ndjson" if path.startswith("/api/") else "text/event-stream"
            assert caller.response.headers["Content-Type"].partition(";")[0] == type_expected
            assert (await newest(service))["attempt"] == 1


@pytest.mark.parametrize("path", STREAMING)
async def test_a_reply_that_is_asked_for_whole_has_none(path: str) -> None:
    async with service_in_process(OFTEN, SETTINGS) as service:
        async with aiohttp.ClientSession(service.ollama.url) as direct:
            expected = await seen(direct, "POST", path, WHOLE[path])
        stalled = stall(service, path)
        whole_reply = asyncio.create_task(seen(service.session, "POST", path, WHOLE[path]))
        async with reading(service, path) as other:
            await service.ollama.observations.until(lambda seen: seen.stalled == 2)
            await other.sees(signs=3)
            stalled.release()
            await other.ends()
        assert (await whole_reply).comparable == expected.comparable


@pytest.mark.parametrize("path", STREAMING)
@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_before_the_first_a_refusal_has_its_own_status(path: str, status: int) -> None:
    options = {"retry.max_retries": 0, "queue.hold_busy": False, "breaker.failure_threshold": 1000}
    async with service_in_process(options, SETTINGS) as service:
        service.ollama.arm(Fault(kind=FaultKind.ERROR, endpoint=path, status=status, message="out of order"))
        reply = await seen(service.session, "POST", path, STREAMING[path])
        assert (reply.status, reply.is_whole) == (status, True)


OPENAI_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
ANTHROPIC_TYPES = {**OPENAI_TYPES, 503: "overloaded_error"}


def refused(path: str, message: str, status: int) -> Any:
    """What the last frame says of a refusal that came too late for its status."""
    if path.startswith("/api/"):
        return {"error": message, "status": status}
    if path == "/v1/messages":
        return {"type": "error", "error": {"type": ANTHROPIC_TYPES.get(status, "api_error"), "message": message}}
    kind = OPENAI_TYPES.get(status, "api_error")
    error = {"message": message, "type": kind, "param": None, "code": status}
    if path == "/v1/responses":
        event = {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0}
        return {**event, "error": error}
    return {"error": error}


def last(caller: Reading) -> Any:
    """What the only frame beside the signs of life says."""
    assert caller.is_whole is caller.path.startswith("/v1/"), "on lines some clients overlook the frame"
    text = caller.body.decode()
    if caller.path in ("/v1/messages", "/v1/responses"):
        assert text.startswith("event: error\n")
        text = text.removeprefix("event: error\n")
    return json.loads(text if caller.path.startswith("/api/") else text.removeprefix("data: "))


@pytest.mark.parametrize("path", STREAMING)
@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_after_the_first_a_refusal_is_an_error_that_names_its_status(path: str, status: int) -> None:
    async with service_in_process({**NONE, "breaker.failure_threshold": 1000}, SETTINGS) as service:
        stalled = stall(service, path)
        service.ollama.arm(Fault(kind=FaultKind.ERROR, endpoint=path, status=status, message="out of order"))
        async with reading(service, path) as caller:
            await caller.sees(signs=2)
            stalled.release()
            await caller.ends()
            assert last(caller) == refused(path, "out of order", status)


@pytest.mark.parametrize("path", STREAMING)
async def test_so_is_one_of_our_own(path: str) -> None:
    async with service_in_process(OFTEN, SETTINGS, seats=1) as service:
        stalled = stall(service, "/api/generate", prompt="first")
        body = {"model": "tiny1", "prompt": "first", "stream": False}
        first = asyncio.create_task(service.call("POST", "/api/generate", body))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        async with reading(service, path) as cancelled:
            await cancelled.sees(signs=2)
            await service.call("DELETE", f"/api/v1/prompt/{cancelled.response.headers['X-Job-Id']}")
            await cancelled.ends()
            assert last(cancelled) == refused(path, "request canceled", 499)
        stalled.release()
        await first


async def test_who_waits_when_the_service_stops_is_told_so(tmp_path: Path) -> None:
    async with service_in_process(OFTEN, SETTINGS, folder=tmp_path) as service:
        stall(service, "/api/chat")
        async with reading(service, "/api/chat") as caller:
            await caller.sees(signs=2)
            await service.stop()
            await caller.ends()
            assert last(caller)["status"] == 503
            assert "stopping" in last(caller)["error"]


@pytest.mark.parametrize("path", STREAMING)
async def test_a_job_may_be_tried_again_after_a_sign_of_life(path: str) -> None:
    async with service_in_process({**OFTEN, **RETRIES}, SETTINGS) as service:
        expected = await ollamas(service.ollama, path)
        stalled = stall(service, path, times=1)
        service.ollama.arm(Fault(kind=FaultKind.ERROR, endpoint=path, status=500, message="passes", times=1))
        async with reading(service, path) as caller:
            await caller.sees(signs=2)
            stalled.release()
            await caller.ends()
            assert alike(caller.body) == expected
            assert caller.is_whole
            assert (await newest(service))["attempt"] == 2


@pytest.mark.parametrize("path", STREAMING)
async def test_a_break_in_the_middle_of_an_answer_names_no_status(path: str) -> None:
    async with service_in_process({**OFTEN, **RETRIES}, SETTINGS) as service:
        stalled = stall(service, path, after_tokens=4)
        service.ollama.arm(Fault(kind=FaultKind.HANG_UP, endpoint=path, after_tokens=6))
        async with reading(service, path) as caller:
            await caller.sees(signs=2)
            stalled.release()
            await caller.ends()
            assert caller.is_whole is path.startswith("/v1/")
            frame = json.loads(caller.body.decode().rstrip("\n").rpartition("\n")[2].removeprefix("data: "))
            assert "status" not in frame
            assert path.startswith("/api/") or frame["error"].get("code") is None
            assert path != "/v1/messages" or frame["error"]["type"] == "api_error"


async def test_half_a_line_is_held_back_and_they_stand_before_it() -> None:
    line = b'{"model":"m","message":{"role":"assistant","content":"Blue"},"done":false}\n'
    end = b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}\n'
    may_go_on = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.path != "/api/chat":
            told = {"version": "0.24.0", "models": [{"name": "m"}] if exchange.path == "/api/tags" else []}
            await exchange.send(whole(json.dumps(told).encode()))
            return
        await exchange.send(STREAM + chunk(line + line[:20]))
        await may_go_on.wait()
        await exchange.send(chunk(line[20:] + end) + END)

    async with raw_server(answer) as server:
        options = {**OFTEN, "backends": [{"name": "raw", "url": server.url}]}
        body = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "stream": True}
        async with service_in_process(options) as service, reading(service, "/api/chat", body) as caller:
            await caller.sees(signs=3)
            assert caller.body == line
            may_go_on.set()
            await caller.ends()
            assert (caller.body, caller.is_whole) == (line + line + end, True)


async def test_all_who_ask_with_the_same_key_are_sent_them_and_then_the_same_reply() -> None:
    key = {"Idempotency-Key": "once"}
    async with service_in_process(OFTEN, SETTINGS) as service:
        expected = await ollamas(service.ollama, "/api/chat")
        stalled = stall(service, "/api/chat", after_tokens=3)
        async with (
            reading(service, "/api/chat", headers=key) as first,
            reading(service, "/api/chat", headers=key) as second,
        ):
            for caller in (first, second):
                await caller.sees(signs=3)
            stalled.release()
            for caller in (first, second):
                await caller.ends()
                assert (alike(caller.body), caller.is_whole) == (expected, True)
        # What is kept of the reply is Ollama's.
        async with reading(service, "/api/chat", headers=key) as later:
            await later.ends()
            assert (later.signs, alike(later.body)) == (0, expected)
        assert service.ollama.observations.requests["/api/chat"] == 2


async def test_a_load_that_is_answered_in_one_piece_is_a_line_of_the_stream() -> None:
    settings = SimulatedSettings(models=SETTINGS.models)
    async with service_in_process(OFTEN, settings) as service:
        loading = service.ollama.arm(Fault(kind=FaultKind.LOAD_STALL))
        async with reading(service, "/api/generate", {"model": "tiny1"}) as caller:
            await caller.sees(signs=2)
            loading.release()
            await caller.ends()
            assert caller.is_whole
            assert json.loads(caller.body)["done_reason"] == "load"


async def test_who_leaves_between_two_of_them_takes_its_job_along() -> None:
    async with service_in_process(OFTEN, SETTINGS) as service:
        stalled = stall(service, "/api/chat", after_tokens=2)
        with counted_signs() as signs:
            async with reading(service, "/api/chat") as caller:
                await caller.sees(signs=1)
            assert signs.sent
        await until_listed(service, "cancelled")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await service.ollama.observations.until(lambda seen: seen.closed_connections == 1)
        stalled.release()
