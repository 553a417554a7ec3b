"""LlamaIndex with Ollama's API."""

from __future__ import annotations

import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel

from tests.clients.scripts.expecting import BREAK_OFF, EMBEDDER, QUESTION, SPELLING, expect, expect_error

URL = sys.argv[1]


class Country(BaseModel):
    """A country."""

    name: str
    languages: list[str]


def weather(city: str) -> str:
    """The weather of a city."""
    return "fine"


def ask(content: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=content)]


llm = Ollama(model=SPELLING, base_url=URL, request_timeout=60, context_window=4096)
whole = llm.chat(ask(QUESTION)).message.content
streamed = "".join(part.delta or "" for part in llm.stream_chat(ask(QUESTION)))
expect(whole and whole == streamed, "whole and streamed chat differ")
expect(llm.complete(QUESTION).text, "no completion")
expect(isinstance(llm.structured_predict(Country, PromptTemplate(QUESTION)), Country), "no structured output")
called = llm.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg=QUESTION)
expect([call.tool_name for call in llm.get_tool_calls_from_response(called)] == ["weather"], "no tool call")
embedding = OllamaEmbedding(model_name=EMBEDDER, base_url=URL)
expect(len(embedding.get_text_embedding_batch(["a", "b"])) == 2, "no embeddings")
unknown = Ollama(model="nosuch", base_url=URL, context_window=4096)
expect_error(lambda: unknown.chat(ask(QUESTION)), "unknown model", "not found")
expect_error(lambda: llm.stream_chat(ask(BREAK_OFF)), "cut stream")
