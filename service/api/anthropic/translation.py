"""What the queue must know of a call to the Anthropic-compatible API (wire contract 1.8)."""

from __future__ import annotations

from typing import Any

from service.api.dropin.details import CallDetails, frame_bytes, last_words
from service.api.dropin.reading import is_name
from service.job import runner_key
from service.model_limits import ModelLimits

DOOR = "anthropic"


def describe(endpoint: str, body: dict[str, Any], accept: str, limits: ModelLimits) -> CallDetails | None:
    """None for a body that Ollama is to refuse itself: no model, or fields of a wrong type."""
    model, stream = body.get("model"), body.get("stream")
    if not isinstance(model, str) or not is_name(model) or not isinstance(stream, bool | None):
        return None
    limited = limits.applied(endpoint, model, body)
    return CallDetails(
        model=model,
        prompt=last_words(body.get("messages")),
        is_streamed=stream is True,
        runner=runner_key(model),
        body=None if limited is body else limited,
    )


def error_frame(endpoint: str, message: str) -> bytes:
    """The last event of a stream that broke off, as Anthropic's own API sends it."""
    error = {"type": "error", "error": {"type": "api_error", "message": message}}
    return b"event: error\ndata: " + frame_bytes(error) + b"\n\n"


def heartbeat(endpoint: str, model: str) -> bytes:
    """A comment (wire contract 5.7)."""
    return b": waiting\n\n"
