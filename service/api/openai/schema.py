"""What OpenAI's API takes and answers, as far as Ollama knows it (wire contract 1.7), as a description only: Ollama
checks the fields, and fields that are not listed here are passed on, too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.fields import one_of

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


class TranscriptionForm(TypedDict):
    """``POST /v1/audio/transcriptions``, a form. Each field once, but for those whose names end with ``[]``."""

    model: ModelName
    file: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    """The sound, with a file's name."""
    prompt: NotRequired[str]
    language: NotRequired[str]
    response_format: NotRequired[str]
    """``text`` for the words alone."""


class _Picture(TypedDict):
    model: ModelName
    prompt: str
    size: NotRequired[str]
    """Such as ``1024x768``."""
    seed: NotRequired[int]


class ImageGenerationRequest(_Picture):
    """``POST /v1/images/generations``."""

    n: NotRequired[int]
    response_format: NotRequired[str]


class ImageEditRequest(_Picture):
    """``POST /v1/images/edits``, as JSON."""

    image: str
    """``data:image/png;base64,…``"""


class DecisionRequest(TypedDict):
    """``POST /v1/systemone``."""

    model: ModelName
    state: str | dict[str, Any] | list[Any]
    questions: Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=64)]
    images: NotRequired[list[str]]
    """In base64."""
    keep_alive: NotRequired[str | float]


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


class NativeError(TypedDict):
    """An error as Ollama words it, which is what ``/v1/systemone`` has."""

    error: str


class Transcription(TypedDict):
    """What was said."""

    text: str


class Images(TypedDict):
    """The pictures, in base64."""

    created: int
    data: list[dict[str, Any]]


class Decision(TypedDict):
    """An answer to each question, by its name."""

    model: str
    answers: dict[str, dict[str, Any]]
    usage: NotRequired[dict[str, Any]]


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
