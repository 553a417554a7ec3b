"""What is to be known of each drop-in endpoint, one row for each.

Its route, its place in the request log, its readers, its limits and its errors are made from the row. A new endpoint
begins here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import NamedTuple


class Kind(Enum):
    """What the model does for such a call."""

    WRITES = "writes"
    EMBEDS = "embeds"
    DECIDES = "decides"
    DRAWS = "draws"


class Body(StrEnum):
    """The media type of the request."""

    JSON = "application/json"
    MULTIPART = "multipart/form-data"


class Streams(Enum):
    """Whether a request that does not say ``stream`` is answered with a stream."""

    YES = "yes"
    NO = "no"
    BY_CALLER = "by caller"
    """Yes, unless the caller is one that expects one object (:mod:`service.api.http.unsaid_stream`): then the
    translation writes ``"stream": false`` into the body.
    """


class Endpoint(NamedTuple):
    """A drop-in route, served under the same path as Ollama serves it."""

    path: str
    door: str
    """The dialect whose translation reads the request."""
    errors: str
    """The dialect in whose shape errors are told."""
    kind: Kind
    content: str
    """The field with what the model is asked; a list shows its words."""
    go_type: str
    """What Ollama decodes the body into; its refusals name it."""
    whole_reader: str
    """What reads a reply that is one object: a name in a module of :mod:`service.backend.protocols`."""
    text_reader: str | None = None
    """What reads a whole reply that its media type does not call JSON, named likewise and given that type."""
    streamed_reader: str | None = None
    """What reads a stream, named likewise; None: the endpoint never streams."""
    streams: Streams = Streams.NO
    token_field: str | None = None
    """The field that bounds the answer, among the options where there are any; None: nothing bounds it."""
    needs_tokens: bool = False
    """Ollama refuses a request without that field, or with none above 0; a limit must not hide this."""
    is_model_required: bool = True
    """Ollama refuses a request without a model (400); else it looks for the model without a name (404)."""
    has_options: bool = False
    """Whether a request carries ``options`` and ``keep_alive``."""
    has_keep_alive: bool = False
    """Whether it carries ``keep_alive`` without options."""
    body: Body = Body.JSON

    @property
    def is_form(self) -> bool:
        """Whether the request is a form, which is kept in another way than it is sent (:mod:`service.form_data`)."""
        return self.body is Body.MULTIPART

    def is_streamed(self, asked: object) -> bool:
        """Whether the reply is a stream when the request's ``stream`` is this. What is neither true nor false says
        nothing; Ollama refuses it.
        """
        if self.streamed_reader is None:
            return False
        return asked if isinstance(asked, bool) else self.streams is not Streams.NO


GENERATE = "/api/generate"
CHAT = "/api/chat"

_ROWS = (
    Endpoint(
        GENERATE,
        door="ollama",
        errors="ollama",
        kind=Kind.WRITES,
        content="prompt",
        go_type="api.GenerateRequest",
        whole_reader="ndjson.whole_generate",
        streamed_reader="ndjson.GenerateReader",
        streams=Streams.YES,
        token_field="num_predict",
        has_options=True,
        is_model_required=False,
    ),
    Endpoint(
        CHAT,
        door="ollama",
        errors="ollama",
        kind=Kind.WRITES,
        content="messages",
        go_type="api.ChatRequest",
        whole_reader="ndjson.whole_chat",
        streamed_reader="ndjson.ChatReader",
        streams=Streams.BY_CALLER,
        token_field="num_predict",
        has_options=True,
    ),
    Endpoint(
        "/api/embed",
        door="ollama",
        errors="ollama",
        kind=Kind.EMBEDS,
        content="input",
        go_type="api.EmbedRequest",
        whole_reader="embeddings.whole_embed",
        has_options=True,
        is_model_required=False,
    ),
    Endpoint(
        "/api/embeddings",
        door="ollama",
        errors="ollama",
        kind=Kind.EMBEDS,
        content="prompt",
        go_type="api.EmbeddingRequest",
        whole_reader="embeddings.whole_legacy",
        has_options=True,
    ),
    Endpoint(
        "/v1/chat/completions",
        door="openai",
        errors="openai",
        kind=Kind.WRITES,
        content="messages",
        go_type="openai.ChatCompletionRequest",
        whole_reader="openai.whole_chat",
        streamed_reader="openai.ChatReader",
        token_field="max_tokens",
    ),
    Endpoint(
        "/v1/completions",
        door="openai",
        errors="openai",
        kind=Kind.WRITES,
        content="prompt",
        go_type="openai.CompletionRequest",
        whole_reader="openai.whole_completion",
        streamed_reader="openai.CompletionsReader",
        token_field="max_tokens",
        is_model_required=False,
    ),
    Endpoint(
        "/v1/embeddings",
        door="openai",
        errors="openai",
        kind=Kind.EMBEDS,
        content="input",
        go_type="openai.EmbedRequest",
        whole_reader="embeddings.whole_openai",
        is_model_required=False,
    ),
    Endpoint(
        "/v1/responses",
        door="openai",
        errors="openai",
        kind=Kind.WRITES,
        content="input",
        go_type="openai.ResponsesRequest",
        whole_reader="responses.whole_response",
        streamed_reader="responses.ResponsesReader",
        token_field="max_output_tokens",
    ),
    Endpoint(
        "/v1/audio/transcriptions",
        door="openai",
        errors="openai",
        kind=Kind.WRITES,
        content="prompt",
        go_type="openai.TranscriptionRequest",
        whole_reader="transcriptions.whole_transcription",
        text_reader="transcriptions.TextReader",
        body=Body.MULTIPART,
    ),
    Endpoint(
        "/v1/images/generations",
        door="openai",
        errors="openai",
        kind=Kind.DRAWS,
        content="prompt",
        go_type="openai.ImageGenerationRequest",
        whole_reader="images.ImagesReader",
    ),
    Endpoint(
        "/v1/images/edits",
        door="openai",
        errors="openai",
        kind=Kind.DRAWS,
        content="prompt",
        go_type="openai.ImageEditRequest",
        whole_reader="images.ImagesReader",
    ),
    Endpoint(
        "/v1/systemone",
        door="openai",
        errors="ollama",
        kind=Kind.DECIDES,
        content="state",
        go_type="api.SystemOneRequest",
        whole_reader="decisions.whole_decision",
        has_keep_alive=True,
    ),
    Endpoint(
        "/v1/messages",
        door="anthropic",
        errors="anthropic",
        kind=Kind.WRITES,
        content="messages",
        go_type="anthropic.MessagesRequest",
        whole_reader="messages.whole_message",
        streamed_reader="messages.MessagesReader",
        token_field="max_tokens",
        needs_tokens=True,
    ),
)

ENDPOINTS: Mapping[str, Endpoint] = {row.path: row for row in _ROWS}
"""By path, in the order of the routes."""

OWN_JOB_PATHS = ("/api/v1/prompt", "/generate")
"""Corral's own routes that make jobs; each asks Ollama at one of the endpoints."""

JOB_PATHS = frozenset((*OWN_JOB_PATHS, *ENDPOINTS))
"""All routes that make jobs, when they are posted to."""
