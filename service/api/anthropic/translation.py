"""What the queue must know of a call to the Anthropic-compatible API (wire contract 1.8)."""

from __future__ import annotations

from typing import Any

from service.api.dropin.details import CallDetails, describe_without_options, frame_bytes
from service.endpoints import Endpoint
from service.model_limits import ModelLimits

DOOR = "anthropic"

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def describe(endpoint: Endpoint, body: dict[str, Any], is_whole: bool, limits: ModelLimits) -> CallDetails | None:
    """What the queue must know of the request; None where it names no model that Ollama could have."""
    return describe_without_options(endpoint, body, limits)


def error_type(status: int) -> str:
    """What Anthropic's API calls an error with this status."""
    return _ERROR_TYPES.get(status, "api_error")


def error_frame(endpoint: str, message: str, status: int | None) -> bytes:
    """The last event of a stream, as Anthropic's own API sends it: of one that broke off, or of one that a refusal has
    come too late for.
    """
    kind = "api_error" if status is None else error_type(status)
    error = {"type": "error", "error": {"type": kind, "message": message}}
    return b"event: error\ndata: " + frame_bytes(error) + b"\n\n"


def heartbeat(endpoint: str, model: str, now_ms: int) -> bytes:
    """The event that Anthropic's own API sends between any others."""
    return b'event: ping\ndata: {"type":"ping"}\n\n'
