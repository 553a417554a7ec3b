"""What the queue must know of a call to the Anthropic-compatible API (wire contract 1.8)."""

from __future__ import annotations

from typing import Any

from service.api.dropin.details import CallDetails, describe_without_options, frame_bytes
from service.endpoints import Endpoint
from service.model_limits import ModelLimits

DOOR = "anthropic"


def describe(endpoint: Endpoint, body: dict[str, Any], accept: str, limits: ModelLimits) -> CallDetails | None:
    """What the queue must know of the request; None for one that Ollama is to refuse itself."""
    return describe_without_options(endpoint, body, limits)


def error_frame(endpoint: str, message: str) -> bytes:
    """The last event of a stream that broke off, as Anthropic's own API sends it."""
    error = {"type": "error", "error": {"type": "api_error", "message": message}}
    return b"event: error\ndata: " + frame_bytes(error) + b"\n\n"


def heartbeat(endpoint: str, model: str) -> bytes:
    """A comment (wire contract 5.7)."""
    return b": waiting\n\n"
