"""Pydantic AI with OpenAI's API as Ollama offers it, and with Anthropic's."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.scripts.expecting import BREAK_OFF, MODEL, QUESTION, SPELLING, expect, expect_error

URL = sys.argv[1]
OLLAMA = OllamaProvider(base_url=f"{URL}/v1")


class Country(BaseModel):
    """A country."""

    name: str
    languages: list[str]


async def streamed(model: Any, prompt: str) -> str:
    async with Agent(model).run_stream(prompt) as result:
        return "".join([text async for text in result.stream_text(delta=True)])


for model in (
    OpenAIChatModel(SPELLING, provider=OLLAMA),
    OpenAIResponsesModel(SPELLING, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key="any")),
    AnthropicModel(SPELLING, provider=AnthropicProvider(base_url=URL, api_key="any")),
):
    kind = type(model).__name__
    whole = Agent(model).run_sync(QUESTION).output
    expect(whole and whole == asyncio.run(streamed(model, QUESTION)), f"{kind}: whole and streamed differ")
    expect_error(lambda model=model: asyncio.run(streamed(model, BREAK_OFF)), f"{kind}: cut stream")

agent = Agent(OpenAIChatModel(MODEL, provider=OLLAMA))
asked: list[str] = []


@agent.tool_plain
def weather(city: str) -> str:
    """The weather of a city."""
    asked.append(city)
    return "fine"


expect(agent.run_sync(QUESTION).output and asked, "no tool call")
formed = Agent(OpenAIChatModel(MODEL, provider=OLLAMA), output_type=Country).run_sync(QUESTION).output
expect(isinstance(formed, Country), "no structured output")
unknown = Agent(OpenAIChatModel("nosuch", provider=OLLAMA))
expect_error(lambda: unknown.run_sync(QUESTION), "unknown model", "not found")
