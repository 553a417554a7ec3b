"""What the queue must know of a call to the OpenAI-compatible API (wire contract 1.7)."""

from __future__ import annotations

from typing import Any

from service.api.dropin.details import CallDetails, frame_bytes, last_words, text_of
from service.api.dropin.reading import is_name
from service.job import runner_key
from service.model_limits import ModelLimits

DOOR = "openai"


def describe(endpoint: str, body: dict[str, Any], accept: str, limits: ModelLimits) -> CallDetails | None:
    """None for a body that Ollama is to refuse itself: no model, or fields of a wrong type."""
    model, stream = body.get("model"), body.get("stream")
    if not isinstance(model, str) or not is_name(model) or not isinstance(stream, bool | None):
        return None
    limited = limits.applied(endpoint, model, body)
    return CallDetails(
        model=model,
        prompt=_words(endpoint, body),
        is_streamed=stream is True and endpoint != "/v1/embeddings",
        runner=runner_key(model),
        body=None if limited is body else limited,
    )


def error_frame(endpoint: str, message: str) -> bytes:
    """The last event of a stream that broke off; OpenAI's own clients raise on it."""
    error = {"message": message, "type": "api_error", "param": None, "code": None}
    if endpoint == "/v1/responses":
        # What OpenAI sends there; its own client raises only where there is an ``error``, so both are in it.
        event = {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0}
        return b"event: error\ndata: " + frame_bytes({**event, "error": error}) + b"\n\n"
    return b"data: " + frame_bytes({"error": error}) + b"\n\n"


def heartbeat(endpoint: str, model: str) -> bytes:
    """A comment (wire contract 5.7)."""
    return b": waiting\n\n"


def _words(endpoint: str, body: dict[str, Any]) -> str:
    match endpoint:
        case "/v1/chat/completions":
            return last_words(body.get("messages"))
        case "/v1/completions":
            return text_of(body.get("prompt"))
        case _:
            given = body.get("input")
            if isinstance(given, list) and any(isinstance(item, dict) for item in given):
                return last_words(given)
            return text_of(given)
