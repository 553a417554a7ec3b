"""LangChain with Ollama's API."""

from __future__ import annotations

import sys

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from pydantic import BaseModel

from tests.clients.scripts.expecting import (
    BREAK_OFF,
    EMBEDDER,
    MODEL,
    QUESTION,
    SPELLING,
    THINKER,
    expect,
    expect_error,
)

URL = sys.argv[1]


class Country(BaseModel):
    """A country."""

    name: str
    languages: list[str]


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return "fine"


expect(ChatOllama(model=MODEL, base_url=URL, validate_model_on_init=True), "not found in the list")
chat = ChatOllama(model=SPELLING, base_url=URL)
whole = chat.invoke([HumanMessage(QUESTION)])
streamed = "".join(str(chunk.content) for chunk in chat.stream(QUESTION))
expect(whole.content and whole.content == streamed, "whole and streamed chat differ")
expect(whole.response_metadata["done_reason"] == "stop", "no done_reason")
called = ChatOllama(model=MODEL, base_url=URL).bind_tools([weather]).invoke(QUESTION)
expect([call["name"] for call in called.tool_calls] == ["weather"], "no tool call")
found = ChatOllama(model=MODEL, base_url=URL).with_structured_output(Country, method="json_schema").invoke(QUESTION)
expect(isinstance(found, Country), "no structured output")
thought = ChatOllama(model=THINKER, base_url=URL, reasoning=True).invoke(QUESTION)
expect(thought.additional_kwargs.get("reasoning_content"), "no thinking")
expect(OllamaLLM(model=MODEL, base_url=URL).invoke(QUESTION), "no completion")
expect(len(OllamaEmbeddings(model=EMBEDDER, base_url=URL).embed_documents(["a", "b"])) == 2, "no embeddings")
expect_error(lambda: ChatOllama(model="nosuch", base_url=URL).invoke(QUESTION), "unknown model", "not found")
expect_error(lambda: chat.stream(BREAK_OFF), "cut stream")
