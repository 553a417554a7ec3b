"""The simulated Ollama runs the built-in web search as the real one does: silent, and failing inside (contract 2.4)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from service.simulated import RECORDED_MODELS, Fault, FaultKind, SimulatedModel, busy
from tests.support.simulation import TINY, simulated_ollama, sse_events

MODELS = (*RECORDED_MODELS, SimulatedModel("finder", ("completion", "tools")))
SETTINGS = replace(TINY, models=MODELS, version="0.33.0", tokens=4)
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
ASKED: dict[str, dict[str, Any]] = {
    RESPONSES: {"model": "finder", "input": "who won?", "stream": True, "tools": [{"type": "web_search"}]},
    MESSAGES: {
        "model": "finder",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "who won?"}],
        "stream": True,
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
    },
}
FAILED = ["response.created", "response.in_progress", "response.failed"]


async def _ask(session: aiohttp.ClientSession, path: str = RESPONSES, **changes: Any) -> tuple[int, str, bytes]:
    async with session.post(path, json=ASKED[path] | changes) as response:
        return response.status, response.content_type, await response.read()


async def test_a_response_shows_its_search_and_then_answers() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        status, _, body = await _ask(session)
        events = sse_events(body)
        names = [name or "" for name, _ in events]
        searching = [name for name in names if "web_search" in name]
        assert (status, names[:2], names[-1]) == (200, FAILED[:2], "response.completed")
        assert searching == [f"response.web_search_call.{step}" for step in ("in_progress", "searching", "completed")]
        assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
        output = events[-1][1]["response"]["output"]
        assert [item["type"] for item in output] == ["web_search_call", "message"]
        assert output[0]["action"] == {"type": "search", "query": "who won?"}
        _, _, whole = await _ask(session, stream=False)
        assert [item["type"] for item in json.loads(whole)["output"]] == ["web_search_call", "message"]
        assert server.observations.answers == 2


async def test_a_message_is_silent_until_it_has_searched() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        search = server.arm(Fault(kind=FaultKind.SEARCH_STALL))
        asking = asyncio.create_task(session.post(MESSAGES, json=ASKED[MESSAGES]))
        await server.observations.until(lambda seen: seen.stalled == 1)
        assert not asking.done()
        search.release()
        async with await asking as response:
            events = sse_events(await response.read())
        blocks = [data["content_block"]["type"] for name, data in events if name == "content_block_start"]
        assert blocks == ["server_tool_use", "web_search_tool_result", "text"]
        assert [data["index"] for name, data in events if name == "content_block_start"] == [0, 1, 2]
        _, _, whole = await _ask(session, MESSAGES, stream=False)
        assert [block["type"] for block in json.loads(whole)["content"]] == blocks


async def test_nothing_is_sent_while_a_response_searches() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        search = server.arm(Fault(kind=FaultKind.SEARCH_STALL))
        async with session.post(RESPONSES, json=ASKED[RESPONSES]) as response:
            received = b""
            while b"response.web_search_call.searching" not in received:
                received += await response.content.readany()
            await server.observations.until(lambda seen: seen.stalled == 1)
            assert response.content.total_bytes == len(received)
            search.release()
            received += await response.read()
        assert sse_events(received)[-1][0] == "response.completed"


@pytest.mark.parametrize("path", ASKED)
async def test_a_search_takes_the_time_that_it_is_told_to(path: str) -> None:
    async with simulated_ollama(replace(SETTINGS, web_search_seconds=3600)) as (server, session):
        asking = asyncio.create_task(_ask(session, path))
        await server.observations.until(lambda seen: seen.running.total() == 1)
        asking.cancel()
        await server.observations.until(lambda seen: seen.in_flight == 0)
        assert server.observations.closed_connections == 1
    async with simulated_ollama(replace(SETTINGS, web_search_seconds=0.001)) as (_, session):
        assert (await _ask(session, path))[0] == 200


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (busy(), "api_error"),
        (Fault(kind=FaultKind.ERROR, status=401, message="unauthorized; sign in at https://x"), "authentication_error"),
        (Fault(kind=FaultKind.ERROR, status=429, message="slow down"), "rate_limit_exceeded"),
        (Fault(kind=FaultKind.RUNNER_KILLED), "api_error"),
        (Fault(kind=FaultKind.LOAD_ERROR), "api_error"),
    ],
)
async def test_a_refusal_before_the_first_token_is_inside_the_stream(fault: Fault, code: str) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(fault)
        status, content_type, body = await _ask(session)
        events = sse_events(body)
        assert (status, content_type, [name for name, _ in events]) == (200, "text/event-stream", FAILED)
        failed = events[-1][1]["response"]
        assert (failed["status"], failed["error"]) == ("failed", {"code": code, "message": fault.reply_message})
        # A whole reply has its status.
        assert (await _ask(session, stream=False))[0] == fault.reply_status


async def test_what_the_server_itself_refuses_is_inside_the_stream_too() -> None:
    async with simulated_ollama(SETTINGS) as (_, session):
        for changes, words in (({"model": "nosuch"}, "not found"), ({"model": "tiny1"}, "does not support tools")):
            status, _, body = await _ask(session, **changes)
            assert (status, [name for name, _ in sse_events(body)]) == (200, FAILED)
            assert words in sse_events(body)[-1][1]["response"]["error"]["message"]
        # A body that cannot be read never comes so far.
        assert (await _ask(session, input=5))[0] == 400


async def test_a_search_that_fails_ends_the_stream_in_its_middle() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.SEARCH_ERROR))
        status, _, body = await _ask(session)
        names = [name for name, _ in sse_events(body)]
        assert [data["sequence_number"] for _, data in sse_events(body)] == list(range(len(names)))
        assert (status, names[:2], names[-2:]) == (
            200,
            FAILED[:2],
            ["response.web_search_call.searching", "response.failed"],
        )
        assert (await _ask(session, stream=False))[0] == 403
        assert server.observations.answers == 0


async def test_an_error_after_the_first_token_is_swallowed_as_ever() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.RUNNER_KILLED, after_tokens=3))
        _, _, body = await _ask(session)
        assert not {"response.failed", "response.completed"} & {name for name, _ in sse_events(body)}


@pytest.mark.parametrize("version", ["0.24.0", "0.32.9"])
async def test_before_0_32_10_responses_refuse_with_their_status(version: str) -> None:
    async with simulated_ollama(replace(SETTINGS, version=version)) as (_, session):
        assert (await _ask(session, model="nosuch"))[:2] == (404, "application/json")


async def test_a_caller_s_own_tool_is_still_the_callers() -> None:
    tools = [{"type": "web_search"}, {"type": "function", "name": "weather", "parameters": {"type": "object"}}]
    async with simulated_ollama(SETTINGS) as (_, session):
        _, _, body = await _ask(session, input="use weather", tools=tools)
        assert [item["type"] for item in sse_events(body)[-1][1]["response"]["output"]] == ["function_call"]
