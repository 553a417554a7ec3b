"""Errors as Anthropic's API words them, in the way Ollama does (wire contract 3.1)."""

from __future__ import annotations

import secrets
from typing import Annotated, NotRequired

from aiohttp import web
from typing_extensions import TypedDict

from service.api.http.failures import Failure
from service.api.http.fields import one_of
from service.api.http.json_replies import json_bytes
from service.api.http.unrouted import unrouted

_KINDS = {
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


class AnthropicErrorDetails(TypedDict):
    """What is the matter, in Anthropic's words."""

    type: str
    message: str


class AnthropicError(TypedDict):
    """An error as Anthropic's API words it."""

    type: Annotated[str, one_of(["error"])]
    error: AnthropicErrorDetails
    request_id: NotRequired[str]


def shape(failure: Failure) -> web.Response:
    """``{"type": "error", …}``; what has no route is told in text."""
    text = unrouted(failure)
    if text is not None:
        return text
    kind = _KINDS.get(failure.status, "api_error")
    request_id = f"req_{secrets.token_hex(12)}"
    body: AnthropicError = {
        "type": "error",
        "error": {"type": kind, "message": failure.message},
        "request_id": request_id,
    }
    return web.Response(
        body=json_bytes(body), status=failure.status, headers={"Content-Type": "application/json", **failure.headers}
    )
