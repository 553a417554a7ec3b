"""What OpenAI's API answers, as Ollama has it (wire contract 1.7, 2.3 and 2.4); there may be more."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from typing_extensions import TypedDict

from service.api.reply_fields import one_of


class TokenUsage(TypedDict):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: NotRequired[int]
    total_tokens: int


class _Completed(TypedDict):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: NotRequired[str]
    choices: list[dict[str, Any]]
    usage: NotRequired[TokenUsage | None]


class ChatCompletion(_Completed):
    """The answer; of a stream, a piece of it, as the data of an event. The last event holds ``[DONE]``."""


class Completion(_Completed):
    """The same without turns."""


class Embeddings(TypedDict):
    """A vector for each input."""

    object: Annotated[str, one_of(["list"])]
    data: list[dict[str, Any]]
    model: str
    usage: NotRequired[TokenUsage]


class OpenAIModel(TypedDict):
    """An installed model."""

    id: str
    object: Annotated[str, one_of(["model"])]
    created: int
    owned_by: str


class OpenAIModelList(TypedDict):
    """The installed models; null when there are none."""

    object: Annotated[str, one_of(["list"])]
    data: list[OpenAIModel] | None


class ResponsesReply(TypedDict):
    """The whole response."""

    id: str
    object: Annotated[str, one_of(["response"])]
    status: str
    model: str
    output: list[dict[str, Any]]
    usage: NotRequired[dict[str, Any] | None]


class ResponsesEvent(TypedDict):
    """The data of one event."""

    type: str
    sequence_number: int
