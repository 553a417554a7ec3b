"""Ollama's own client for Python works with the service as with Ollama."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import ollama
import pytest
from pydantic import BaseModel

from service.simulated import FaultKind
from tests.support.client_service import ADMIN_KEY, CUTS, PNG, QUESTION, SPELLINGS, TOOL, arm, read, service_for_clients
from tests.support.running import RunningService
from tests.support.signs_of_life import OFTEN, counted_signs


@pytest.fixture
async def service(ollama_version: str) -> AsyncIterator[RunningService]:
    async with service_for_clients(version=ollama_version) as service:
        yield service


@pytest.fixture
async def client(service: RunningService) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(service.url) as client:
        yield client


@pytest.mark.parametrize("model", SPELLINGS)
async def test_a_chat_whole_and_streamed_under_every_spelling(client: ollama.AsyncClient, model: str) -> None:
    whole = await client.chat(model, QUESTION)
    parts = await read(await client.chat(model, QUESTION, stream=True))
    assert whole.message.content == "".join(part.message.content or "" for part in parts)
    assert [part.done for part in parts] == [False] * 20 + [True]
    assert (whole.model, whole.done_reason, whole.eval_count) == (model, "stop", 20)


async def test_generating_with_images_options_suffix_and_log_probabilities(client: ollama.AsyncClient) -> None:
    whole = await client.generate("llama3.2", "Why?", images=[PNG], options={"num_predict": 5})
    parts = await read(await client.generate("llama3.2", "Why?", stream=True, options={"num_predict": 5}))
    assert (whole.done_reason, whole.eval_count, len(parts)) == ("length", 5, 6)
    assert parts[-1].context
    assert (await client.generate("llama3.2", "def f(", suffix="return x")).response
    answer = await client.generate("llama3.2", "Why?", logprobs=True, top_logprobs=2)
    assert answer.logprobs is not None
    assert "".join(each.token for each in answer.logprobs) == answer.response


async def test_thinking_tools_and_formats(client: ollama.AsyncClient) -> None:
    class Country(BaseModel):
        name: str
        languages: list[str]

    thinking = await client.chat("qwen3:4b", QUESTION, think=True)
    assert thinking.message.thinking
    assert thinking.message.content
    parts = await read(await client.chat("qwen3:4b", QUESTION, think=True, stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == thinking.message.thinking
    for stream in (True, False):
        reply: Any = await client.chat("llama3.2", QUESTION, tools=[TOOL], stream=stream)
        found = await read(reply) if stream else [reply]
        calls = [call for part in found for call in part.message.tool_calls or []]
        assert [call.function.name for call in calls] == ["weather"]
    answer = await client.chat("llama3.2", QUESTION, format=Country.model_json_schema())
    assert Country.model_validate_json(answer.message.content or "").languages


async def test_embeddings(client: ollama.AsyncClient) -> None:
    both = await client.embed("nomic-embed-text", ["one", "two"])
    assert both.embeddings[1] == (await client.embed("Nomic-Embed-Text:latest", "two")).embeddings[0]
    assert len((await client.embeddings("nomic-embed-text", "one")).embedding) == 768
    assert len((await client.embed("nomic-embed-text", "one", dimensions=16)).embeddings[0]) == 16


async def test_models_are_listed_shown_loaded_and_unloaded(client: ollama.AsyncClient) -> None:
    names = {model.model for model in (await client.list()).models}
    assert names == {"llama3.2:latest", "qwen3:4b", "nomic-embed-text:latest"}
    assert (await client.show("qwen3:4b")).capabilities == ["completion", "tools", "thinking"]
    assert (await client.generate("qwen3:4b")).done_reason == "load"
    assert [model.model for model in (await client.ps()).models] == ["qwen3:4b"]
    assert (await client.generate("QWEN3:4b", keep_alive=0)).done_reason == "unload"
    assert (await client.ps()).models == []
    assert (await client.chat("qwen3:4b", [], keep_alive=0)).done_reason == "unload"
    assert (await client.ps()).models == []


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ({"model": "nosuch", "messages": QUESTION}, 404, "model 'nosuch' not found"),
        ({"model": "llama3.2", "messages": QUESTION, "think": True}, 400, '"llama3.2" does not support thinking'),
        (
            {"model": "llama3.2", "messages": QUESTION, "options": {"num_ctx": "x"}},
            500,
            'option "num_ctx" must be of type integer',
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_refusals_are_in_ollamas_words(
    client: Any, call: dict[str, Any], status: int, message: str, stream: bool
) -> None:
    with pytest.raises(ollama.ResponseError) as refused:
        await read(await client.chat(**call, stream=stream))
    assert (refused.value.status_code, refused.value.error) == (status, message)


@pytest.mark.parametrize("kind", CUTS)
async def test_a_stream_that_is_cut_raises_the_clients_own_error(
    service: RunningService, client: ollama.AsyncClient, kind: FaultKind
) -> None:
    arm(service, kind, "/api/chat", after_tokens=5)
    parts: list[Any] = []
    with pytest.raises(ollama.ResponseError):
        await read(await client.chat("llama3.2", QUESTION, stream=True), parts)
    assert [part.done for part in parts] == [False] * 5


async def test_a_client_that_stops_reading_ends_the_answer(service: RunningService) -> None:
    stall = arm(service, FaultKind.STALL, "/api/chat", after_tokens=3)
    async with ollama.AsyncClient(service.url) as client:
        async for _ in await client.chat("llama3.2", QUESTION, stream=True):
            await service.ollama.observations.until(lambda seen: seen.stalled == 1)
            break
        whole = asyncio.create_task(client.chat("llama3.2", QUESTION))
        await service.ollama.observations.until(lambda seen: seen.stalled == 2)
        whole.cancel()
        await asyncio.wait((whole,))
    await service.ollama.observations.until(lambda seen: seen.closed_connections == 2)
    stall.release()


@pytest.mark.parametrize("after_tokens", [0, 7], ids=["before the first", "in the middle"])
async def test_signs_of_life_do_not_disturb_the_client(after_tokens: int, ollama_version: str) -> None:
    async def ask(endpoint: str, asked: Awaitable[Any]) -> list[Any]:
        stall = arm(service, FaultKind.STALL, endpoint, after_tokens=after_tokens)
        reading = asyncio.create_task(read(await asked))
        await signs.until_more(3)
        stall.release()
        parts = await reading
        assert [part.done for part in parts[-2:]] == [False, True]
        assert len(parts) >= 21 + 3
        return parts

    async with service_for_clients(OFTEN, version=ollama_version) as service, ollama.AsyncClient(service.url) as client:
        whole = await client.chat("llama3.2", QUESTION)
        with counted_signs() as signs:
            chat = await ask("/api/chat", client.chat("llama3.2", QUESTION, stream=True))
            assert "".join(part.message.content or "" for part in chat) == whole.message.content
            generated = await ask("/api/generate", client.generate("llama3.2", "Why?", stream=True))
            assert len("".join(part.response or "" for part in generated).split()) == 20


async def test_a_failure_after_a_sign_of_life_is_raised_with_its_words(ollama_version: str) -> None:
    async with service_for_clients(OFTEN, version=ollama_version) as service, ollama.AsyncClient(service.url) as client:
        stall = arm(service, FaultKind.STALL, "/api/chat")
        arm(service, FaultKind.ERROR, "/api/chat", status=500, message="CUDA error")
        with counted_signs() as signs:
            reading = asyncio.create_task(read(await client.chat("llama3.2", QUESTION, stream=True)))
            await signs.until_more(1)
        stall.release()
        with pytest.raises(ollama.ResponseError, match="CUDA error"):
            await reading


async def test_models_are_managed_with_an_admin_key_only(service: RunningService, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with ollama.AsyncClient(service.url) as anybody:
        for refused in (anybody.pull("gemma3:1b"), anybody.delete("llama3.2"), anybody.copy("llama3.2", "mine")):
            with pytest.raises(ollama.ResponseError) as error:
                await refused
            assert error.value.status_code in (401, 403)
    async with ollama.AsyncClient(service.url, headers=headers) as client:
        statuses = [step.status or "" async for step in await client.pull("gemma3:1b", stream=True)]
        assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")
        assert (await client.push("gemma3:1b")).status == "success"
        assert (await client.copy("gemma3:1b", "mine")).status == "success"
        weights = tmp_path / "made.gguf"
        weights.write_bytes(b"GGUF" * 100_000)
        digest = await client.create_blob(weights)
        made = await client.create("made", files={"made.gguf": digest}, parameters={"num_predict": 3})
        assert made.status == "success"
        assert (await client.generate("made", "x")).eval_count == 3
        assert (await client.delete("made")).status == "success"
        assert {model.model for model in (await client.list()).models} > {"gemma3:1b", "mine:latest"}
        with pytest.raises(ollama.ResponseError, match="file does not exist"):
            await client.pull("nosuch")


async def test_the_client_that_blocks_works_too(service: RunningService) -> None:
    def talk() -> tuple[str, int]:
        with ollama.Client(service.url) as client:
            whole = client.chat("llama3.2", QUESTION)
            return whole.message.content or "", len(list(client.chat("llama3.2", QUESTION, stream=True)))

    content, parts = await asyncio.to_thread(talk)
    assert content
    assert parts == 21
