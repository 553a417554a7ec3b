"""The real clients of Ollama, OpenAI and Anthropic find in the simulated Ollama what they find in Ollama."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from pydantic import BaseModel

from service.simulated import DEMO_MODELS, DEMO_SETTINGS, Fault, FaultKind, SimulatedServer, SimulatedSettings

QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
MODELS = tuple(replace(model, load_seconds=0.0) for model in DEMO_MODELS)
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
async def server() -> AsyncIterator[SimulatedServer]:
    async with SimulatedServer(SimulatedSettings(models=MODELS)) as server:
        yield server


@pytest.fixture
async def client(server: SimulatedServer) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(server.url) as client:
        yield client


async def test_chat_whole_and_streamed_say_the_same(client: ollama.AsyncClient) -> None:
    whole = await client.chat("llama3.2", QUESTION)
    parts = [part async for part in await client.chat("llama3.2", QUESTION, stream=True)]
    assert whole.message.content == "".join(part.message.content or "" for part in parts)
    assert [part.done for part in parts] == [False] * 20 + [True]
    assert (whole.done_reason, whole.eval_count, parts[-1].eval_count) == ("stop", 20, 20)
    assert whole.model == "llama3.2"


async def test_generate_whole_and_streamed_say_the_same(client: ollama.AsyncClient) -> None:
    whole = await client.generate("LLAMA3.2:latest", "Why?", options={"num_predict": 5})
    parts = [part async for part in await client.generate("llama3.2", "Why?", stream=True, options={"num_predict": 5})]
    assert whole.response == "".join(part.response or "" for part in parts)
    assert (whole.done_reason, whole.model) == ("length", "LLAMA3.2:latest")
    assert parts[-1].context


async def test_thinking_comes_before_the_answer(client: ollama.AsyncClient) -> None:
    whole = await client.chat("qwen3:4b", QUESTION, think=True)
    assert whole.message.thinking
    assert whole.message.content
    parts = [part async for part in await client.chat("qwen3:4b", QUESTION, stream=True)]
    thoughts = [bool(part.message.thinking) for part in parts]
    assert thoughts[0]
    assert not thoughts[-1]
    assert sorted(thoughts, reverse=True) == thoughts
    assert (await client.chat("qwen3:4b", QUESTION, think=False)).message.thinking is None
    assert (await client.generate("qwen3:4b", "Why?", think="high")).thinking


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_model_calls_a_tool_and_speaks_when_it_has_the_result(
    client: ollama.AsyncClient, is_stream: bool
) -> None:
    if is_stream:
        parts = [part async for part in await client.chat("llama3.2", QUESTION, tools=[TOOL], stream=True)]
        calls = [call for part in parts for call in part.message.tool_calls or []]
    else:
        calls = list((await client.chat("llama3.2", QUESTION, tools=[TOOL])).message.tool_calls or [])
    assert [call.function.name for call in calls] == ["weather"]
    assert isinstance(calls[0].function.arguments["city"], str)
    assert isinstance(calls[0].function.arguments["days"], int)
    result = [*QUESTION, {"role": "tool", "tool_name": "weather", "content": "fine"}]
    answer = await client.chat("llama3.2", result, tools=[TOOL])
    assert answer.message.content
    assert not answer.message.tool_calls


class _Country(BaseModel):
    name: str
    population: int
    languages: list[str]
    is_island: bool


async def test_a_format_is_kept_to(client: ollama.AsyncClient) -> None:
    answer = await client.chat("llama3.2", QUESTION, format=_Country.model_json_schema())
    assert _Country.model_validate_json(answer.message.content or "").languages
    plain = await client.generate("llama3.2", "Why?", format="json")
    assert (plain.response or "").startswith("{")


async def test_log_probabilities_come_when_asked_for(client: ollama.AsyncClient) -> None:
    answer = await client.generate("llama3.2", "Why?", logprobs=True, top_logprobs=2)
    assert answer.logprobs is not None
    assert [len(each.top_logprobs or []) for each in answer.logprobs] == [2] * 20
    assert "".join(each.token for each in answer.logprobs) == answer.response


async def test_vectors_have_length_one_and_keep_their_order(client: ollama.AsyncClient) -> None:
    both = await client.embed("nomic-embed-text", ["one", "two"])
    second = await client.embed("nomic-embed-text", "two")
    assert both.embeddings[1] == second.embeddings[0]
    assert len(both.embeddings[0]) == 768
    assert sum(each * each for each in both.embeddings[0]) == pytest.approx(1)
    assert len((await client.embed("nomic-embed-text", "one", dimensions=16)).embeddings[0]) == 16
    assert len((await client.embeddings("nomic-embed-text", "one")).embedding) == 768
    assert (await client.embed("nomic-embed-text", "")).embeddings == []


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ({"model": "nosuch", "messages": QUESTION}, 404, "model 'nosuch' not found"),
        ({"model": "llama3.2", "messages": QUESTION, "think": True}, 400, '"llama3.2" does not support thinking'),
        ({"model": "nomic-embed-text", "messages": QUESTION}, 400, '"nomic-embed-text" does not support chat'),
        (
            {"model": "llama3.2", "messages": QUESTION, "options": {"num_ctx": "x"}},
            500,
            'option "num_ctx" must be of type integer',
        ),
        ({"model": "llama3.2", "messages": QUESTION, "keep_alive": "5"}, 400, 'time: missing unit in duration "5"'),
        (
            {"model": "llama3.2", "messages": QUESTION, "top_logprobs": 21},
            400,
            "top_logprobs must be between 0 and 20",
        ),
    ],
)
@pytest.mark.parametrize("is_stream", [True, False])
async def test_refusals_reach_the_client_in_ollamas_words(
    client: Any, call: dict[str, Any], status: int, message: str, is_stream: bool
) -> None:
    with pytest.raises(ollama.ResponseError) as refused:
        await _read(await client.chat(**call, stream=is_stream))
    assert (refused.value.status_code, refused.value.error) == (status, message)


async def _read(reply: Any) -> list[Any]:
    return [reply] if isinstance(reply, ollama.ChatResponse) else [part async for part in reply]


async def test_an_error_line_in_a_stream_is_raised(server: SimulatedServer, client: ollama.AsyncClient) -> None:
    server.arm(Fault(kind=FaultKind.RUNNER_KILLED, after_tokens=3))
    with pytest.raises(ollama.ResponseError, match="unexpected EOF"):
        await _read(await client.chat("llama3.2", QUESTION, stream=True))


async def test_lists_show_what_is_there_and_what_is_loaded(client: ollama.AsyncClient) -> None:
    names = {model.model for model in (await client.list()).models}
    assert names == {"llama3.2:latest", "qwen3:4b", "nomic-embed-text:latest"}
    assert (await client.ps()).models == []
    loaded = await client.generate("qwen3:4b")
    assert (loaded.response, loaded.done_reason) == ("", "load")
    assert [model.model for model in (await client.ps()).models] == ["qwen3:4b"]
    assert (await client.generate("qwen3:4b", keep_alive=0)).done_reason == "unload"
    assert (await client.ps()).models == []
    shown = await client.show("qwen3:4b")
    assert shown.capabilities == ["completion", "tools", "thinking"]


async def test_models_are_pulled_pushed_created_copied_and_deleted(client: ollama.AsyncClient, tmp_path: Path) -> None:
    statuses = [step.status or "" async for step in await client.pull("gemma3:1b", stream=True)]
    assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")
    assert (await client.push("gemma3:1b")).status == "success"
    assert (await client.copy("gemma3:1b", "mine")).status == "success"
    weights = tmp_path / "made.gguf"
    weights.write_bytes(b"GGUF")
    digest = await client.create_blob(weights)
    made = await client.create("made", files={"made.gguf": digest}, parameters={"num_predict": 3})
    assert made.status == "success"
    assert (await client.generate("made", "x")).eval_count == 3
    assert (await client.create("derived", from_="llama3.2", parameters={"num_predict": 2})).status == "success"
    assert (await client.generate("derived", "x")).eval_count == 2
    assert (await client.delete("made")).status == "success"
    names = {model.model for model in (await client.list()).models}
    assert {"gemma3:1b", "mine:latest", "derived:latest"} < names
    assert "made:latest" not in names
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        await client.pull("nosuch")


@pytest.fixture
async def openai_client(server: SimulatedServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


async def test_openais_client_chats_streams_calls_tools_and_embeds(openai_client: openai.AsyncOpenAI) -> None:
    messages: Any = QUESTION
    whole = await openai_client.chat.completions.create(model="llama3.2", messages=messages)
    stream = await openai_client.chat.completions.create(
        model="llama3.2", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 20
    tools: Any = [TOOL]
    called = await openai_client.chat.completions.create(model="llama3.2", messages=messages, tools=tools)
    assert called.choices[0].finish_reason == "tool_calls"
    vectors = await openai_client.embeddings.create(model="nomic-embed-text", input=["one", "two"])
    assert len(vectors.data[1].embedding) == 768
    assert {model.id async for model in openai_client.models.list()} >= {"qwen3:4b"}
    with pytest.raises(openai.NotFoundError):
        await openai_client.chat.completions.create(model="nosuch", messages=messages)


@pytest.mark.parametrize("model", ["llama3.2", "qwen3:4b"])
async def test_openais_client_reads_responses(openai_client: openai.AsyncOpenAI, model: str) -> None:
    whole = await openai_client.responses.create(model=model, input="Why?")
    stream = await openai_client.responses.create(model=model, input="Why?", stream=True)
    events: list[Any] = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == whole.output_text
    assert whole.output_text
    tool: Any = {"type": "function", **TOOL["function"]}
    stream = await openai_client.responses.create(model=model, input="Why?", tools=[tool], stream=True)
    events = [event async for event in stream]
    assert events[-1].response.output[-1].name == "weather"


async def test_anthropics_client_reads_messages(server: SimulatedServer) -> None:
    messages: Any = QUESTION
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="any", max_retries=0) as client:
        whole = await client.messages.create(model="qwen3:4b", max_tokens=50, messages=messages)
        assert [block.type for block in whole.content] == ["thinking", "text"]
        async with client.messages.stream(model="qwen3:4b", max_tokens=50, messages=messages) as stream:
            streamed = await stream.get_final_message()
        assert [block.type for block in streamed.content] == ["thinking", "text"]
        assert streamed.stop_reason == "end_turn"
        tools: Any = [{"name": "weather", "input_schema": TOOL["function"]["parameters"]}]
        async with client.messages.stream(model="llama3.2", max_tokens=50, messages=messages, tools=tools) as stream:
            called = await stream.get_final_message()
        assert (called.content[0].type, called.stop_reason) == ("tool_use", "tool_use")
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(model="nosuch", max_tokens=5, messages=messages)


async def test_the_demo_says_plainly_that_it_is_simulated() -> None:
    settings = replace(DEMO_SETTINGS, models=MODELS, token_seconds=0.0)
    async with SimulatedServer(settings) as server, ollama.AsyncClient(server.url) as client:
        answer = await client.chat("llama3.2", QUESTION, tools=[TOOL])
    said = answer.message.content or ""
    assert said.startswith("This is a simulated answer; no model is running.")
    assert "Why is the sky blue?" in said
    assert len(said.split()) > 60
