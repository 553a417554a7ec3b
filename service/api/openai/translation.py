"""What the queue must know of a call to the OpenAI-compatible API (wire contract 1.7)."""

from __future__ import annotations

import json
from typing import Any

from service.api.dropin.details import CallDetails, describe_without_options, frame_bytes
from service.endpoints import Endpoint, Kind
from service.model_limits import ModelLimits

DOOR = "openai"

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


def describe(endpoint: Endpoint, body: dict[str, Any], is_whole: bool, limits: ModelLimits) -> CallDetails | None:
    """What the queue must know of the request; None where it names no model that Ollama could have."""
    details = describe_without_options(endpoint, body, limits)
    if details is None or endpoint.kind is not Kind.DECIDES:
        return details
    state = body.get(endpoint.content)
    if not isinstance(state, dict | list):
        return details
    return details._replace(prompt=json.dumps(state, ensure_ascii=False))


def error_type(status: int) -> str:
    """What OpenAI's API calls an error with this status."""
    return _ERROR_TYPES.get(status, "api_error")


def error_frame(endpoint: str, message: str, status: int | None) -> bytes:
    """The last event of a stream, on which OpenAI's own clients raise: of one that broke off, or of one that a refusal
    has come too late for.
    """
    kind = "api_error" if status is None else error_type(status)
    error = {"message": message, "type": kind, "param": None, "code": status}
    if endpoint == "/v1/responses":
        # OpenAI sends an event like this; its own client raises only when there is an ``error``, so that is added.
        event = {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0}
        return b"event: error\ndata: " + frame_bytes({**event, "error": error}) + b"\n\n"
    return b"data: " + frame_bytes({"error": error}) + b"\n\n"


def heartbeat(endpoint: str, model: str, now_ms: int) -> bytes:
    """A comment (wire contract 5.7)."""
    return b": waiting\n\n"
