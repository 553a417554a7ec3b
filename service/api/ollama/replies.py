"""What Ollama's own API answers (wire contract 1.1 to 1.6), as far as its versions agree; there may be more."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from service.api.ollama.models import OllamaMessage


class _Timings(TypedDict):
    total_duration: NotRequired[int]
    """Nanoseconds, as all durations."""
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]


class _Generated(_Timings):
    model: str
    created_at: str
    done: bool
    done_reason: NotRequired[str]
    prompt_eval_duration: NotRequired[int]
    eval_count: NotRequired[int]
    eval_duration: NotRequired[int]
    logprobs: NotRequired[list[Any]]


class OllamaGenerateReply(_Generated):
    """The answer, or one line of it; counts are on the last."""

    response: str
    thinking: NotRequired[str]
    context: NotRequired[list[int]]


class OllamaChatReply(_Generated):
    """The answer, or one line of it; counts are on the last."""

    message: OllamaMessage


class OllamaEmbedReply(_Timings):
    """A vector for each input."""

    model: str
    embeddings: list[list[float]]


class OllamaEmbeddingsReply(TypedDict):
    """One vector."""

    embedding: list[float]


class OllamaModelEntry(TypedDict):
    """An installed model."""

    name: str
    model: NotRequired[str]
    modified_at: NotRequired[str]
    size: NotRequired[int]
    digest: NotRequired[str]
    details: NotRequired[dict[str, Any]]


class OllamaTags(TypedDict):
    """The installed models."""

    models: list[OllamaModelEntry]


class OllamaLoadedEntry(TypedDict):
    """A loaded model."""

    name: str
    model: NotRequired[str]
    size: NotRequired[int]
    digest: NotRequired[str]
    details: NotRequired[dict[str, Any]]
    expires_at: NotRequired[str]
    size_vram: NotRequired[int]
    context_length: NotRequired[int]


class OllamaLoaded(TypedDict):
    """The loaded models."""

    models: list[OllamaLoadedEntry]


class OllamaVersion(TypedDict):
    """``X.Y.Z``."""

    version: str


class OllamaShowReply(TypedDict):
    """What is known of a model."""

    modelfile: NotRequired[str]
    parameters: NotRequired[str]
    template: NotRequired[str]
    details: NotRequired[dict[str, Any]]
    model_info: NotRequired[dict[str, Any]]
    capabilities: NotRequired[list[str]]
    modified_at: NotRequired[str]


class OllamaProgress(TypedDict):
    """How far a transfer is; the last one says ``success``."""

    status: str
    digest: NotRequired[str]
    total: NotRequired[int]
    completed: NotRequired[int]
