"""The simulated Ollama speaks as the version does that it is told to be (wire contract 1 to 4, and 7.4)."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from service.simulated import RECORDED_MODELS, Fault, FaultKind, SimulatedModel, texts
from service.simulated.versions import behaviour_of
from tests.support.simulation import TINY, json_lines, simulated_ollama, sse_events

OLD, MIDDLE, NEW = "0.24.0", "0.33.0", "0.40.0"
EVERY_VERSION = pytest.mark.parametrize("version", [OLD, MIDDLE, NEW])
MODELS = (
    *RECORDED_MODELS,
    SimulatedModel("apple", format="safetensors"),
    SimulatedModel("eyes", ("completion", "vision"), family="qwen3vl", families=("qwen3vl", "clip")),
    SimulatedModel("nimble", ("decision",), family="lfm2"),
    SimulatedModel("thinker", ("completion", "tools", "thinking")),
)
SETTINGS = replace(TINY, models=MODELS, tokens=4)
HELLO = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"


async def _post(session: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, bytes]:
    async with session.post(path, json=body) as response:
        return response.status, await response.read()


async def _chunks(version: str, **changes: Any) -> list[Any]:
    async with simulated_ollama(replace(SETTINGS, version=version)) as (_, session):
        body = {"model": "tiny1", "messages": HELLO, "stream": True} | changes
        return [data for _, data in sse_events((await _post(session, CHAT, body))[1])]


def test_versions_are_compared_as_numbers() -> None:
    assert not behaviour_of("0.9.3-rc1").has_capabilities_in_tags
    assert not behaviour_of("0.32.5").has_finish_chunk
    assert behaviour_of("0.32.6-rc0").has_finish_chunk
    assert behaviour_of("0.32.5").draws_images
    assert not behaviour_of("0.32.6").draws_images
    assert behaviour_of("v0.100").has_system_one
    assert behaviour_of("1.0.0").tells_token_repeats
    with pytest.raises(ValueError, match="no version"):
        behaviour_of("newest")


@EVERY_VERSION
async def test_a_server_says_its_version(version: str) -> None:
    settings = replace(SETTINGS, version=version)
    async with simulated_ollama(settings) as (_, session), session.get("/api/version") as response:
        assert await response.json() == {"version": version}


async def test_a_process_speaks_the_version_that_its_command_line_names() -> None:
    command = (sys.executable, "-m", "service.simulated", "--port", "0", "--version", NEW)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        async with aiohttp.ClientSession(url) as session, session.get("/api/version") as response:
            assert await response.json() == {"version": NEW}
    finally:
        process.terminate()
        await process.wait()


async def test_until_0_32_5_every_chunk_has_a_role_and_the_last_a_finish_reason() -> None:
    *chunks, done = await _chunks(OLD)
    assert done == "[DONE]"
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks] == ["assistant"] * 5
    assert chunks[-1]["choices"][0] == {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "finish_reason": "stop",
    }


@pytest.mark.parametrize("version", [MIDDLE, NEW])
@pytest.mark.parametrize("changes", [{}, {"logprobs": True}, {"model": "thinker"}])
async def test_since_0_32_6_the_role_is_in_the_first_chunk_and_the_finish_reason_in_its_own(
    version: str, changes: dict[str, Any]
) -> None:
    *chunks, usage, done = await _chunks(version, stream_options={"include_usage": True}, **changes)
    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("role") for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert (deltas[-1], chunks[-1]["choices"][0]["finish_reason"]) == ({}, "stop")
    assert all("content" in delta for delta in deltas[:-1])
    assert {chunk["created"] for chunk in [*chunks, usage]} == {chunks[0]["created"]}
    assert (usage["choices"], usage["usage"]["total_tokens"] > 0) == ([], True)


async def test_an_answer_of_nothing_but_a_tool_call_has_a_role_and_a_finish_chunk_too() -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    first, finish, _ = await _chunks(NEW, model="thinker", tools=tools, reasoning_effort="none")
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert first["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "weather"
    assert finish["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "tool_calls"}


@EVERY_VERSION
async def test_a_swallowed_error_is_a_chunk_of_no_model(version: str) -> None:
    async with simulated_ollama(replace(SETTINGS, version=version)) as (server, session):
        server.arm(Fault(kind=FaultKind.ERROR_LINE, after_tokens=2))
        _, body = await _post(session, CHAT, {"model": "tiny1", "messages": HELLO, "stream": True})
        last = sse_events(body)[-1][1]
        assert (last["model"], last["choices"][0]["finish_reason"]) == ("", None)
        assert ("role" in last["choices"][0]["delta"]) == (version == OLD)


@EVERY_VERSION
async def test_tags_tell_what_a_model_can_do_since_0_30(version: str) -> None:
    async with simulated_ollama(replace(SETTINGS, version=version)) as (_, session):
        async with session.get("/api/tags") as response:
            tags = {model["name"]: model for model in (await response.json())["models"]}
        async with session.post("/api/show", json={"model": "eyes"}) as response:
            shown = await response.json()
    assert shown["capabilities"] == ["completion", "vision"]
    assert tags["apple:latest"]["details"]["format"] == "safetensors"
    assert tags["eyes:latest"]["details"]["families"] == ["qwen3vl", "clip"]
    told = (tags["eyes:latest"].get("capabilities"), tags["eyes:latest"]["details"].get("context_length"))
    assert told == ((None, None) if version == OLD else (["completion", "vision"], 131_072))
    assert ("embedding_length" in tags["embed:latest"]["details"]) == (version != OLD)


@pytest.mark.parametrize(("model", "seats"), [("tiny1", 3), ("apple", 1), ("eyes", 1)])
@EVERY_VERSION
async def test_mlx_models_and_some_families_have_one_seat(version: str, model: str, seats: int) -> None:
    settings = replace(SETTINGS, version=version, parallel=3)
    async with simulated_ollama(settings) as (server, session):
        stall = server.arm(Fault(kind=FaultKind.STALL))
        body = {"model": model, "prompt": "x", "stream": False}
        calls = [asyncio.create_task(_post(session, "/api/generate", body)) for _ in range(4)]
        await server.observations.until(lambda seen: seen.in_flight == 4 and seen.stalled == seats)
        stall.release()
        assert {status for status, _ in await asyncio.gather(*calls)} == {200}
        assert server.observations.peak_running[f"{model}:latest"] == seats


async def test_no_option_reloads_an_mlx_model_and_its_context_bounds_its_answer() -> None:
    async with simulated_ollama(replace(SETTINGS, tokens=None)) as (server, session):
        body: dict[str, Any] = {"model": "apple", "prompt": "hello", "stream": False}
        await _post(session, "/api/generate", body | {"options": {"num_ctx": 64, "num_predict": 1}})
        _, reply = await _post(session, "/api/generate", body | {"options": {"num_ctx": 40, "num_predict": 0}})
        assert json.loads(reply)["prompt_eval_count"] + json.loads(reply)["eval_count"] == 40
        status, reply = await _post(session, "/api/generate", body | {"options": {"num_ctx": 4}, "prompt": "x" * 99})
        message = texts.mlx_context_exceeded(27, 4)
        assert (status, json.loads(reply)) == (400, {"error": message})
        assert server.observations.loads.total() == 1
        status, reply = await _post(session, "/api/embed", {"model": "apple", "input": "x"})
        assert (status, json.loads(reply)) == (400, {"error": "not supported"})


@pytest.mark.parametrize("has_draft", [False, True])
async def test_without_a_draft_none_of_its_tokens_are_predicted(has_draft: bool) -> None:
    models = (SimulatedModel("tiny1", has_draft=has_draft),)
    async with simulated_ollama(replace(SETTINGS, models=models)) as (server, session):
        for options in ({}, {"draft_num_predict": 4 if has_draft else 0}):
            await _post(session, "/api/generate", {"model": "tiny1", "prompt": "x", "options": options})
        assert server.observations.loads.total() == 1


@EVERY_VERSION
@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", CHAT, "/v1/completions"])
async def test_tokens_that_repeat_end_silently_until_0_34_and_with_an_error_since(version: str, path: str) -> None:
    async with simulated_ollama(replace(SETTINGS, version=version)) as (server, session):
        server.arm(Fault(kind=FaultKind.TOKEN_REPEATS, after_tokens=2))
        body = {"model": "tiny1", "messages": HELLO, "prompt": "hello", "stream": True}
        status, streamed = await _post(session, path, body)
        whole_status, whole = await _post(session, path, body | {"stream": False})
        assert status == 200
        assert streamed.count(b'" the"') == (101 if version == NEW else 31)
        told = texts.TOKEN_REPEATS.encode()
        assert (told in streamed) == (version == NEW and path.startswith("/api/"))
        assert (told in whole, whole_status) == ((True, 500) if version == NEW else (False, 200))
        assert b'"done":true' not in streamed + whole
        assert b"[DONE]" not in streamed
        if version != NEW:
            reply = json.loads(whole)
            assert (reply.get("done"), "eval_count" in reply) == ((False, False) if "done" in reply else (None, False))
            assert b" the the" in whole


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", CHAT, "/v1/completions", "/v1/messages"])
async def test_a_silent_end_is_a_stream_of_no_line_or_an_object_of_zeros(path: str) -> None:
    async with simulated_ollama(replace(SETTINGS, version=NEW)) as (server, session):
        server.arm(Fault(kind=FaultKind.SILENT_END))
        body = {"model": "tiny1", "messages": HELLO, "prompt": "hello", "stream": True, "max_tokens": 9}
        assert await _post(session, path, body) == (200, b"")
        status, whole = await _post(session, path, body | {"stream": False})
        reply = json.loads(whole)
        assert (status, reply["model"]) == (200, "")
        if path.startswith("/api/"):
            assert (reply["done"], reply["created_at"]) == (False, "0001-01-01T00:00:00Z")
        elif path != "/v1/messages":
            assert (reply["choices"][0]["finish_reason"], reply["created"]) == (None, -62_135_596_800)


def _words(reply: bytes) -> Any:
    error = json.loads(reply)["error"]
    return error if isinstance(error, str) else error["message"]


@EVERY_VERSION
@pytest.mark.parametrize(("path", "status"), [("/api/embed", 400), ("/api/embeddings", 500), ("/v1/embeddings", 400)])
async def test_vectors_of_a_dead_runner_fail_in_its_tokenizer_since_0_30(version: str, path: str, status: int) -> None:
    async with simulated_ollama(replace(SETTINGS, version=version)) as (server, session):
        server.arm(Fault(kind=FaultKind.RUNNER_KILLED, times=1))
        found, reply = await _post(session, path, {"model": "embed", "input": "x", "prompt": "x"})
        assert (found, _words(reply)) == (status, texts.EMBEDDING_EOF if version == OLD else texts.TOKENIZE_EOF)
        for message in texts.EMBEDDING_FAILURES:
            server.arm(Fault(kind=FaultKind.ERROR_LINE, message=message, times=1))
            found, reply = await _post(session, path, {"model": "embed", "input": "x", "prompt": "x"})
            assert (found, _words(reply)) == (status, message)


async def test_a_template_that_refuses_is_a_500_with_the_runners_json_in_a_string() -> None:
    async with simulated_ollama(replace(SETTINGS, version=NEW)) as (server, session):
        message = texts.template_refusal("No user query found in messages.")
        server.arm(Fault(kind=FaultKind.ERROR, status=500, message=message))
        status, reply = await _post(session, "/api/chat", {"model": "tiny1", "messages": HELLO})
        inner = json.loads(json.loads(reply)["error"])["error"]
        assert (status, inner["code"], inner["type"]) == (500, 500, "server_error")
        assert inner["message"].startswith("\n------------\nWhile executing CallExpression at line 85, column 32")
        assert inner["message"].endswith("\nError: Jinja Exception: No user query found in messages.")


async def test_an_error_within_the_runners_chat_is_a_line_of_the_stream() -> None:
    async with simulated_ollama(replace(SETTINGS, version=NEW)) as (server, session):
        for message in (texts.CHAT_CONTEXT_EXCEEDED, texts.UNPARSED_IN_STREAM, texts.MLX_FAILED):
            server.arm(Fault(kind=FaultKind.ERROR_LINE, after_tokens=2, message=message, times=1))
            _, reply = await _post(session, "/api/chat", {"model": "tiny1", "messages": HELLO})
            assert json_lines(reply)[-1] == {"error": message}
        assert "llama-server chat error: map[code:500 message:Context size" in texts.CHAT_CONTEXT_EXCEEDED


async def test_nobody_has_signed_the_server_in() -> None:
    async with simulated_ollama() as (_, session):
        status, reply = await _post(session, "/api/me", {})
        assert (status, json.loads(reply)["error"]) == (401, "unauthorized")
        assert json.loads(reply)["signin_url"].startswith("https://ollama.com/connect?")
        async with session.get("/api/status") as response:
            assert "cloud" in await response.json()
        for method, path in (("POST", "/api/signout"), ("DELETE", "/api/user/keys/c2ltdWxhdGVk")):
            async with session.request(method, path) as response:
                assert (response.status, await response.json()) == (401, {"error": "you are not currently signed in"})


async def test_the_cloud_is_disabled_and_its_recommendations_are_those_that_are_built_in() -> None:
    async with simulated_ollama() as (_, session):
        for path, what in (("web_search", "web search"), ("web_fetch", "web fetch")):
            status, reply = await _post(session, f"/api/experimental/{path}", {"query": "x"})
            assert (status, json.loads(reply)) == (403, {"error": f"ollama cloud is disabled: {what} is unavailable"})
            async with session.post(f"/api/experimental/{path}") as response:
                assert (response.status, await response.json()) == (400, {"error": "missing request body"})
        async with session.get("/api/experimental/model-recommendations") as response:
            listed = (await response.json())["recommendations"]
        assert [set(one) for one in listed] == [{"model", "description", "context_length", "max_output_tokens"}] * 2
