"""What Anthropic's API takes and answers, as far as Ollama knows it (wire contract 1.8), as a description only: Ollama
checks the fields, and fields that are not listed here are passed on, too.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.fields import one_of


class AnthropicMessage(TypedDict):
    """One turn of a chat."""

    role: str
    content: str | list[dict[str, Any]]


class MessagesRequest(TypedDict):
    """``POST /v1/messages``."""

    model: Annotated[str, Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    messages: Annotated[list[AnthropicMessage], Field(min_length=1)]
    system: NotRequired[str | list[dict[str, Any]]]
    stream: NotRequired[bool]
    temperature: NotRequired[float]
    top_p: NotRequired[float]
    top_k: NotRequired[int]
    stop_sequences: NotRequired[list[str]]
    tools: NotRequired[list[dict[str, Any]]]
    thinking: NotRequired[dict[str, Any]]


class MessagesReply(TypedDict):
    """The answer."""

    id: str
    type: Annotated[str, one_of(["message"])]
    role: str
    model: str
    content: list[dict[str, Any]]
    stop_reason: NotRequired[str | None]
    usage: NotRequired[dict[str, Any]]


class MessagesEvent(TypedDict):
    """The data of one event."""

    type: str
