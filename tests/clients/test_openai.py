"""OpenAI's own client for Python works with the service as with Ollama."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from service.simulated import FaultKind
from tests.support.client_service import CUTS, PNG, QUESTION, SPELLINGS, TOOL, arm, failures, read, service_for_clients
from tests.support.running import RunningService
from tests.support.signs_of_life import OFTEN, counted_signs

CHAT = "/v1/chat/completions"


def client_of(service: RunningService, *, max_retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=max_retries)


@pytest.fixture
async def service(ollama_version: str) -> AsyncIterator[RunningService]:
    async with service_for_clients(version=ollama_version) as service:
        yield service


@pytest.fixture
async def client(service: RunningService) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(service) as client:
        yield client


@pytest.mark.parametrize("model", SPELLINGS)
async def test_a_chat_whole_and_streamed_under_every_spelling(client: openai.AsyncOpenAI, model: str) -> None:
    whole = await client.chat.completions.create(model=model, messages=QUESTION)
    chunks = await read(
        await client.chat.completions.create(
            model=model, messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert (whole.model, whole.choices[0].finish_reason) == (model, "stop")
    assert chunks[-1].usage.completion_tokens == 20


async def test_sounds_are_written_down(client: openai.AsyncOpenAI) -> None:
    sound = ("größe.wav", b"RIFF" + bytes(range(256)), "audio/wav")
    told = await client.audio.transcriptions.create(
        model="llama3.2",
        file=sound,
        prompt="names",
        timestamp_granularities=["word", "segment"],
        response_format="json",
    )
    words = await client.audio.transcriptions.create(
        model="llama3.2", file=sound, prompt="names", response_format="text"
    )
    assert told.text
    assert words == told.text
    with pytest.raises(openai.NotFoundError, match="'nosuch' not found"):
        await client.audio.transcriptions.create(model="nosuch", file=sound)
    with pytest.raises(openai.BadRequestError, match="audio file is empty"):
        await client.audio.transcriptions.create(model="llama3.2", file=("empty.wav", b""))


async def test_tools_pictures_formats_and_reasoning(client: openai.AsyncOpenAI) -> None:
    class Country(BaseModel):
        name: str
        languages: list[str]

    tools: Any = [TOOL]
    called = await client.chat.completions.create(model="llama3.2", messages=QUESTION, tools=tools)
    assert called.choices[0].finish_reason == "tool_calls"
    chunks = await read(
        await client.chat.completions.create(model="llama3.2", messages=QUESTION, tools=tools, stream=True)
    )
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert [call.function.name for call in calls] == ["weather"]
    picture: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            ],
        }
    ]
    assert (await client.chat.completions.create(model="llama3.2", messages=picture)).choices[0].message.content
    parsed = await client.chat.completions.parse(model="llama3.2", messages=QUESTION, response_format=Country)
    assert parsed.choices[0].message.parsed is not None
    thinking: Any = await client.chat.completions.create(model="qwen3:4b", messages=QUESTION, reasoning_effort="high")
    assert thinking.choices[0].message.reasoning


async def test_completions_embeddings_and_models(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="llama3.2", prompt="Why?")
    chunks = await read(await client.completions.create(model="llama3.2", prompt="Why?", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    # Without a word about it the client asks for base64, and unpacks it.
    packed = await client.embeddings.create(model="Nomic-Embed-Text", input=["one", "two"])
    plain = await client.embeddings.create(model="nomic-embed-text", input=["one", "two"], encoding_format="float")
    assert [len(each.embedding) for each in packed.data] == [768, 768]
    assert packed.data[1].embedding == pytest.approx(plain.data[1].embedding)
    assert {model.id async for model in client.models.list()} == {
        "llama3.2:latest",
        "qwen3:4b",
        "nomic-embed-text:latest",
    }
    assert (await client.models.retrieve("LLAMA3.2")).id == "LLAMA3.2"


@pytest.mark.parametrize("model", ["llama3.2", "qwen3:4b"])
async def test_responses(client: openai.AsyncOpenAI, model: str) -> None:
    whole = await client.responses.create(model=model, input="Why?")
    events = await read(await client.responses.create(model=model, input="Why?", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == whole.output_text
    tool: Any = {"type": "function", **TOOL["function"]}
    events = await read(await client.responses.create(model=model, input="Why?", tools=[tool], stream=True))
    assert events[-1].response.output[-1].name == "weather"


async def test_the_servers_own_web_search(ollama_version: str, client: Any) -> None:
    search = {"model": "llama3.2", "input": "Why?", "tools": [{"type": "web_search"}]}
    if ollama_version == "0.24.0":  # it knows the tool by no name, and lets the caller call it
        assert [item.type for item in (await client.responses.create(**search)).output] == ["function_call"]
        return
    whole = await client.responses.create(**search)
    events = await read(await client.responses.create(**search, stream=True))
    for output in (whole.output, events[-1].response.output):
        assert [item.type for item in output] == ["web_search_call", "message"]


async def test_refusals_raise_the_error_of_their_status(service: RunningService, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'nosuch' not found"):
        await client.chat.completions.create(model="nosuch", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="too short"):
        await client.chat.completions.create(model="llama3.2", messages=[])
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nosuch")
    arm(service, FaultKind.ERROR, CHAT, status=500, message="CUDA error")
    with pytest.raises(openai.InternalServerError, match="CUDA error"):
        await client.chat.completions.create(model="llama3.2", messages=QUESTION)


async def test_what_we_have_tried_again_the_client_does_not(ollama_version: str) -> None:
    async with service_for_clients(version=ollama_version) as service, client_of(service, max_retries=2) as client:
        arm(service, FaultKind.ERROR, CHAT, status=500, message="CUDA error")
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="llama3.2", messages=QUESTION)
        _, listed = await service.call("GET", "/api/v1/prompts")
        assert listed["total"] == 1
        assert service.ollama.observations.requests[CHAT] == 2


@pytest.mark.parametrize("kind", CUTS)
@pytest.mark.parametrize("route", ["chat", "completions", "responses"])
async def test_a_stream_that_is_cut_raises_the_clients_own_error(
    service: RunningService, client: Any, route: str, kind: FaultKind
) -> None:
    endpoint, asked = {
        "chat": (CHAT, {"messages": QUESTION}),
        "completions": ("/v1/completions", {"prompt": "Why?"}),
        "responses": ("/v1/responses", {"input": "Why?"}),
    }[route]
    arm(service, kind, endpoint, after_tokens=5)
    resource = client.chat.completions if route == "chat" else getattr(client, route)
    found: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        await read(await resource.create(model="llama3.2", stream=True, **asked), found)
    assert found
    # It is our error that it raises, and not that of a connection that broke.
    assert not isinstance(caught.value, openai.APIConnectionError)
    [message] = await failures(service)
    assert caught.value.message == message


async def test_a_client_that_stops_reading_ends_the_answer(service: RunningService) -> None:
    stall = arm(service, FaultKind.STALL, CHAT, after_tokens=3)
    async with client_of(service) as client:
        stream = await client.chat.completions.create(model="llama3.2", messages=QUESTION, stream=True)
        async for _ in stream:
            break
        # A call that ends before its stall is never seen to stall.
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        await stream.close()
        whole = asyncio.create_task(client.chat.completions.create(model="llama3.2", messages=QUESTION))
        await service.ollama.observations.until(lambda seen: seen.stalled == 2)
        whole.cancel()
        await asyncio.wait((whole,))
        await service.ollama.observations.until(lambda seen: seen.closed_connections == 2)
    stall.release()


@pytest.mark.parametrize("after_tokens", [0, 7], ids=["before the first", "in the middle"])
async def test_signs_of_life_do_not_disturb_the_client(after_tokens: int, ollama_version: str) -> None:
    async def ask(endpoint: str, asked: Awaitable[Any]) -> list[Any]:
        stall = arm(service, FaultKind.STALL, endpoint, after_tokens=after_tokens)
        reading = asyncio.create_task(read_all(asked))
        await signs.until_more(3)
        stall.release()
        return await reading

    async with service_for_clients(OFTEN, version=ollama_version) as service, client_of(service) as client:
        with counted_signs() as signs:
            chunks = await ask(CHAT, client.chat.completions.create(model="llama3.2", messages=QUESTION, stream=True))
            assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) == 20
            parts = await ask(
                "/v1/completions", client.completions.create(model="llama3.2", prompt="Why?", stream=True)
            )
            assert len("".join(part.choices[0].text for part in parts if part.choices).split()) == 20
            events = await ask("/v1/responses", client.responses.create(model="llama3.2", input="Why?", stream=True))
            assert events[-1].type == "response.completed"
            assert len([event for event in events if event.type == "response.output_text.delta"]) == 20


@pytest.mark.parametrize("endpoint", [CHAT, "/v1/responses"])
async def test_a_failure_after_a_sign_of_life_is_raised_with_its_words_and_its_status(
    endpoint: str, ollama_version: str
) -> None:
    async with service_for_clients(OFTEN, version=ollama_version) as service, client_of(service) as client:
        stall = arm(service, FaultKind.STALL, endpoint)
        arm(service, FaultKind.ERROR, endpoint, status=500, message="CUDA error")
        asked: Any = (
            client.chat.completions.create(model="llama3.2", messages=QUESTION, stream=True)
            if endpoint == CHAT
            else client.responses.create(model="llama3.2", input="Why?", stream=True)
        )
        with counted_signs() as signs:
            reading = asyncio.create_task(read_all(asked))
            await signs.until_more(1)
        stall.release()
        with pytest.raises(openai.APIError, match="CUDA error") as caught:
            await reading
        assert str(caught.value.code) == "500"


async def read_all(asked: Awaitable[Any]) -> list[Any]:
    return await read(await asked)


async def test_our_own_headers_are_there_for_who_looks(client: openai.AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="llama3.2", messages=QUESTION, extra_headers={"X-Priority": "high"}
    )
    assert raw.headers["X-Job-Id"]
    assert json.loads(raw.text)["object"] == "chat.completion"


async def test_the_client_that_blocks_works_too(service: RunningService) -> None:
    def talk() -> tuple[str | None, int]:
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="any") as client:
            whole = client.chat.completions.create(model="llama3.2", messages=QUESTION)
            stream = client.chat.completions.create(model="llama3.2", messages=QUESTION, stream=True)
            return whole.choices[0].message.content, len(list(stream))

    content, chunks = await asyncio.to_thread(talk)
    assert content
    assert chunks > 20
