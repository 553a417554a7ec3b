"""LangChain with OpenAI's API."""

from __future__ import annotations

import sys

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.clients.scripts.expecting import BREAK_OFF, EMBEDDER, MODEL, QUESTION, SPELLING, expect, expect_error

URL = f"{sys.argv[1]}/v1"
KEY = SecretStr("any")


class Country(BaseModel):
    """A country."""

    name: str
    languages: list[str]


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return "fine"


chat = ChatOpenAI(model=SPELLING, base_url=URL, api_key=KEY, max_retries=0)
whole = chat.invoke(QUESTION)
streamed = "".join(str(chunk.content) for chunk in chat.stream(QUESTION))
expect(whole.content and whole.content == streamed, "whole and streamed chat differ")
called = ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY).bind_tools([weather]).invoke(QUESTION)
expect([call["name"] for call in called.tool_calls] == ["weather"], "no tool call")
found = chat.with_structured_output(Country, method="json_schema").invoke(QUESTION)
expect(isinstance(found, Country), "no structured output")
responses = ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY, use_responses_api=True).invoke(QUESTION)
expect(responses.text, "no response")
embeddings = OpenAIEmbeddings(model=EMBEDDER, base_url=URL, api_key=KEY, check_embedding_ctx_length=False)
expect(len(embeddings.embed_documents(["a", "b"])) == 2, "no embeddings")
unknown = ChatOpenAI(model="nosuch", base_url=URL, api_key=KEY)
expect_error(lambda: unknown.invoke(QUESTION), "unknown model", "not found")
expect_error(lambda: chat.stream(BREAK_OFF), "cut stream")
