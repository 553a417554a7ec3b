"""What OpenAI's API takes and answers, as far as Ollama knows it (wire contract 1.7), as a description only: Ollama
checks the fields, and fields that are not listed here are passed on, too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.api.http.fields import one_of

ModelName = Annotated[str, Field(min_length=1)]


class ChatCompletionMessage(TypedDict):
    """One turn of a chat."""

    role: str
    content: NotRequired[str | list[dict[str, Any]] | None]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]


class _Sampling(TypedDict):
    model: ModelName
    stream: NotRequired[bool]
    stream_options: NotRequired[dict[str, Any]]
    """``include_usage``: token counts in an event of their own."""
    max_tokens: NotRequired[int]
    seed: NotRequired[int]
    stop: NotRequired[str | list[str]]
    temperature: NotRequired[float]
    top_p: NotRequired[float]
    frequency_penalty: NotRequired[float]
    presence_penalty: NotRequired[float]


class ChatCompletionRequest(_Sampling):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatCompletionMessage], Field(min_length=1)]
    response_format: NotRequired[dict[str, Any]]
    tools: NotRequired[list[dict[str, Any]]]
    reasoning_effort: NotRequired[Literal["none", "minimal", "low", "medium", "high", "max", "xhigh", "ultra"]]
    reasoning: NotRequired[dict[str, Any]]
    logprobs: NotRequired[bool]
    top_logprobs: NotRequired[Annotated[int, Field(ge=0, le=20)]]


class CompletionRequest(_Sampling):
    """``POST /v1/completions``."""

    prompt: str
    suffix: NotRequired[str]
    logprobs: NotRequired[Annotated[int, Field(ge=0, le=20)]]


class EmbeddingsRequest(TypedDict):
    """``POST /v1/embeddings``."""

    model: ModelName
    input: str | Annotated[list[str], Field(min_length=1)]
    dimensions: NotRequired[int]
    encoding_format: NotRequired[Literal["float", "base64"]]


class ResponsesRequest(TypedDict):
    """``POST /v1/responses``."""

    model: ModelName
    input: str | list[dict[str, Any]]
    instructions: NotRequired[str]
    max_output_tokens: NotRequired[int]
    reasoning: NotRequired[dict[str, Any]]
    temperature: NotRequired[float]
    top_p: NotRequired[float]
    text: NotRequired[dict[str, Any]]
    tools: NotRequired[list[dict[str, Any]]]
    truncation: NotRequired[str]
    stream: NotRequired[bool]


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
