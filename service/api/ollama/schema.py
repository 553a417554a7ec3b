"""What Ollama's own API takes and answers (wire contract 1.2 to 1.6), as a description only: Ollama checks the fields,
and fields that are not listed here are passed on, too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from service.fields import BASE64, Duration

Images = list[Annotated[str, Field(json_schema_extra=BASE64)]]
ModelName = Annotated[str, Field(min_length=1)]


class OllamaMessage(TypedDict):
    """One turn of a chat."""

    role: str
    content: NotRequired[str]
    thinking: NotRequired[str]
    images: NotRequired[Images]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_name: NotRequired[str]
    tool_call_id: NotRequired[str]


class OllamaFunction(TypedDict):
    """What a tool is called by, and with what."""

    name: str
    description: NotRequired[str]
    parameters: NotRequired[dict[str, Any]]
    """A JSON schema."""


class OllamaTool(TypedDict):
    """Something that the model may call."""

    type: str
    function: OllamaFunction


class _Common(TypedDict):
    model: ModelName
    options: NotRequired[dict[str, Any]]
    """Such as ``temperature``, ``num_predict`` and ``num_ctx``."""
    keep_alive: NotRequired[Duration]
    """How long the model stays loaded: seconds, or a duration such as ``5m``; negative: for ever; 0: unload."""


class _Generation(_Common):
    stream: NotRequired[bool]
    """One object a line, as they come. Unless it is said: yes. On ``/api/chat`` without it: yes where ``Accept`` has
    ``application/x-ndjson``; else what ``chat.stream_default`` says; with its ``auto`` no where ``Accept`` has
    ``application/json``, a key is sent, or ``temperature``, ``max_tokens`` or ``model_name`` stand beside the messages
    (then errors of Corral's carry their message as ``detail``, too); else yes.
    """
    temperature: NotRequired[float]
    """Moved to ``options`` as the next ones are; what stands there already wins."""
    top_p: NotRequired[float]
    top_k: NotRequired[int]
    seed: NotRequired[int]
    stop: NotRequired[str | list[str]]
    num_ctx: NotRequired[int]
    num_predict: NotRequired[int]
    max_tokens: NotRequired[int]
    """Moved to ``options.num_predict``, unless there is a ``num_predict``."""
    format: NotRequired[Literal["", "json"] | dict[str, Any]]
    """``json``, or the JSON schema that the answer is to follow."""
    think: NotRequired[bool | Literal["low", "medium", "high", "max"]]
    """Whether the model is to think first, and how hard."""
    truncate: NotRequired[bool]
    shift: NotRequired[bool]
    logprobs: NotRequired[bool]
    top_logprobs: NotRequired[Annotated[int, Field(ge=0, le=20)]]


class OllamaGenerateRequest(_Generation):
    """``POST /api/generate``. Without a prompt the model is loaded, or with ``keep_alive: 0`` unloaded."""

    prompt: NotRequired[str]
    suffix: NotRequired[str]
    system: NotRequired[str]
    template: NotRequired[str]
    context: NotRequired[list[int]]
    raw: NotRequired[bool]
    images: NotRequired[Images]


class OllamaChatRequest(_Generation):
    """``POST /api/chat``. Without messages the model is loaded, or with ``keep_alive: 0`` unloaded."""

    messages: NotRequired[list[OllamaMessage]]
    tools: NotRequired[list[OllamaTool]]
    model_name: NotRequired[str]
    """Taken for a ``model`` that is missing or null."""


class OllamaEmbedRequest(_Common):
    """``POST /api/embed``."""

    input: NotRequired[str | list[str]]
    truncate: NotRequired[bool]
    dimensions: NotRequired[int]


class OllamaEmbeddingsRequest(_Common):
    """``POST /api/embeddings``."""

    prompt: NotRequired[str]


class OllamaShowRequest(TypedDict):
    """``POST /api/show``."""

    model: ModelName
    verbose: NotRequired[bool]


class OllamaTransferRequest(TypedDict):
    """``POST /api/pull`` and ``/api/push``."""

    model: ModelName
    stream: NotRequired[bool]
    insecure: NotRequired[bool]


# "from" is a keyword in Python.
OllamaCreateRequest = TypedDict(
    "OllamaCreateRequest",
    {
        "model": ModelName,
        "from": NotRequired[str],
        "files": NotRequired[dict[str, str]],
        "adapters": NotRequired[dict[str, str]],
        "template": NotRequired[str],
        "license": NotRequired[str | list[str]],
        "system": NotRequired[str],
        "parameters": NotRequired[dict[str, Any]],
        "messages": NotRequired[list[OllamaMessage]],
        "quantize": NotRequired[str],
        "stream": NotRequired[bool],
    },
)


class OllamaCopyRequest(TypedDict):
    """``POST /api/copy``."""

    source: str
    destination: str


class OllamaDeleteRequest(TypedDict):
    """``DELETE /api/delete``."""

    model: ModelName


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


class OllamaStatus(TypedDict):
    """Whether the server may use the cloud, and who decided that."""

    cloud: NotRequired[dict[str, Any]]


class OllamaAccount(TypedDict):
    """The account as which the server is signed in."""

    id: NotRequired[str]
    email: NotRequired[str]
    name: NotRequired[str]
    plan: NotRequired[str]


class OllamaRecommendations(TypedDict):
    """The models that are recommended."""

    recommendations: list[dict[str, Any]]


class OllamaWebSearchRequest(TypedDict):
    """``POST /api/experimental/web_search``."""

    query: str
    max_results: NotRequired[int]


class OllamaWebFetchRequest(TypedDict):
    """``POST /api/experimental/web_fetch``."""

    url: str


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
