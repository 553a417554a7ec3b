"""Anthropic's own client for Python works with the service as with Ollama."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from service.simulated import FaultKind
from tests.support.client_service import CUTS, PNG, QUESTION, SPELLINGS, TOOL, arm, failures, read, service_for_clients
from tests.support.running import RunningService
from tests.support.signs_of_life import OFTEN, counted_signs

MESSAGES = "/v1/messages"


def client_of(service: RunningService, *, max_retries: int = 0) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=service.url, api_key="any", max_retries=max_retries)


@pytest.fixture
async def service(ollama_version: str) -> AsyncIterator[RunningService]:
    async with service_for_clients(version=ollama_version) as service:
        yield service


@pytest.fixture
async def client(service: RunningService) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with client_of(service) as client:
        yield client


@pytest.mark.parametrize("model", SPELLINGS)
async def test_messages_whole_and_streamed_under_every_spelling(client: anthropic.AsyncAnthropic, model: str) -> None:
    whole: Any = await client.messages.create(model=model, max_tokens=50, messages=QUESTION)
    async with client.messages.stream(model=model, max_tokens=50, messages=QUESTION) as stream:
        streamed: Any = await stream.get_final_message()
    assert streamed.content[0].text == whole.content[0].text
    assert (whole.model, whole.stop_reason, streamed.stop_reason) == (model, "end_turn", "end_turn")


async def test_thinking_tools_and_pictures(client: anthropic.AsyncAnthropic) -> None:
    thinking = await client.messages.create(model="qwen3:4b", max_tokens=50, messages=QUESTION)
    assert [block.type for block in thinking.content] == ["thinking", "text"]
    tools: Any = [{"name": "weather", "input_schema": TOOL["function"]["parameters"]}]
    async with client.messages.stream(model="llama3.2", max_tokens=50, messages=QUESTION, tools=tools) as stream:
        called = await stream.get_final_message()
    assert (called.content[0].type, called.stop_reason) == ("tool_use", "tool_use")
    picture: Any = [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {"type": "text", "text": "What is this?"},
            ],
        }
    ]
    assert (await client.messages.create(model="llama3.2", max_tokens=5, messages=picture)).stop_reason == "max_tokens"


async def test_the_servers_own_web_search(client: anthropic.AsyncAnthropic) -> None:
    asked: Any = {"model": "llama3.2", "max_tokens": 50, "messages": QUESTION}
    asked["tools"] = [{"type": "web_search_20250305", "name": "web_search"}]
    async with client.messages.stream(**asked) as stream:
        streamed = await stream.get_final_message()
    for message in (streamed, await client.messages.create(**asked)):
        assert [block.type for block in message.content] == ["server_tool_use", "web_search_tool_result", "text"]


async def test_refusals_raise_the_error_of_their_status(
    service: RunningService, client: anthropic.AsyncAnthropic
) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model 'nosuch' not found"):
        await client.messages.create(model="nosuch", max_tokens=5, messages=QUESTION)
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.create(model="llama3.2", max_tokens=0, messages=QUESTION)
    arm(service, FaultKind.ERROR, MESSAGES, status=500, message="CUDA error")
    with pytest.raises(anthropic.InternalServerError, match="CUDA error"):
        await client.messages.create(model="llama3.2", max_tokens=5, messages=QUESTION)


async def test_what_we_have_tried_again_the_client_does_not(ollama_version: str) -> None:
    async with service_for_clients(version=ollama_version) as service, client_of(service, max_retries=2) as client:
        arm(service, FaultKind.ERROR, MESSAGES, status=500, message="CUDA error")
        with pytest.raises(anthropic.InternalServerError):
            await client.messages.create(model="llama3.2", max_tokens=5, messages=QUESTION)
        assert service.ollama.observations.requests[MESSAGES] == 2


@pytest.mark.parametrize("kind", CUTS)
async def test_a_stream_that_is_cut_raises_the_clients_own_error(
    service: RunningService, client: anthropic.AsyncAnthropic, kind: FaultKind
) -> None:
    arm(service, kind, MESSAGES, after_tokens=5)
    found: list[Any] = []
    stream = await client.messages.create(model="llama3.2", max_tokens=50, messages=QUESTION, stream=True)
    with pytest.raises(anthropic.APIStatusError) as caught:
        await read(stream, found)
    assert found
    async with client.messages.stream(model="llama3.2", max_tokens=50, messages=QUESTION) as managed:
        with pytest.raises(anthropic.APIStatusError) as managed_caught:
            await managed.get_final_message()
    # It is our error that they raise, and not that of a connection that broke.
    raised: list[Any] = [caught.value.body, managed_caught.value.body]
    assert sorted(body["error"]["message"] for body in raised) == sorted(await failures(service))


async def test_a_client_that_stops_reading_ends_the_answer(service: RunningService) -> None:
    stall = arm(service, FaultKind.STALL, MESSAGES, after_tokens=3)
    async with client_of(service) as client:
        async with client.messages.stream(model="llama3.2", max_tokens=50, messages=QUESTION) as stream:
            async for _ in stream:
                break
            # A call that ends before its stall is never seen to stall.
            await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        whole = asyncio.create_task(client.messages.create(model="llama3.2", max_tokens=50, messages=QUESTION))
        await service.ollama.observations.until(lambda seen: seen.stalled == 2)
        whole.cancel()
        await asyncio.wait((whole,))
        await service.ollama.observations.until(lambda seen: seen.closed_connections == 2)
    stall.release()


@pytest.mark.parametrize("after_tokens", [0, 7], ids=["before the first", "in the middle"])
async def test_signs_of_life_do_not_disturb_the_client(after_tokens: int, ollama_version: str) -> None:
    async def ask(client: anthropic.AsyncAnthropic) -> tuple[str | None, str]:
        async with client.messages.stream(model="llama3.2", max_tokens=50, messages=QUESTION) as stream:
            message = await stream.get_final_message()
            return message.stop_reason, "".join(part.text for part in message.content if part.type == "text")

    async with service_for_clients(OFTEN, version=ollama_version) as service, client_of(service) as client:
        expected = await ask(client)
        stall = arm(service, FaultKind.STALL, MESSAGES, after_tokens=after_tokens)
        with counted_signs() as signs:
            asking = asyncio.create_task(ask(client))
            await signs.until_more(3)
        stall.release()
        assert await asking == expected == ("end_turn", expected[1])


async def test_a_failure_after_a_sign_of_life_is_raised_with_its_words(ollama_version: str) -> None:
    async def ask(client: anthropic.AsyncAnthropic) -> None:
        await read(await client.messages.create(model="llama3.2", max_tokens=9, messages=QUESTION, stream=True))

    async with service_for_clients(OFTEN, version=ollama_version) as service, client_of(service) as client:
        stall = arm(service, FaultKind.STALL, MESSAGES)
        arm(service, FaultKind.ERROR, MESSAGES, status=500, message="CUDA error")
        with counted_signs() as signs:
            asking = asyncio.create_task(ask(client))
            await signs.until_more(1)
        stall.release()
        with pytest.raises(anthropic.APIError, match="CUDA error"):
            await asking


async def test_the_client_that_blocks_works_too(service: RunningService) -> None:
    def talk() -> tuple[str, str | None]:
        with anthropic.Anthropic(base_url=service.url, api_key="any") as client:
            whole = client.messages.create(model="llama3.2", max_tokens=50, messages=QUESTION)
            with client.messages.stream(model="llama3.2", max_tokens=50, messages=QUESTION) as stream:
                return whole.content[0].type, stream.get_final_message().stop_reason

    assert await asyncio.to_thread(talk) == ("text", "end_turn")
