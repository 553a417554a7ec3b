"""Errors as Anthropic's API words them, in the way Ollama does (wire contract 3.1)."""

from __future__ import annotations

import secrets
from typing import Annotated, NotRequired

from aiohttp import web
from typing_extensions import TypedDict

from service.api.anthropic.translation import error_type
from service.api.http.failures import Failure
from service.api.http.json_replies import json_bytes
from service.api.http.unrouted import unrouted
from service.fields import one_of


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
    request_id = f"req_{secrets.token_hex(12)}"
    body: AnthropicError = {
        "type": "error",
        "error": {"type": error_type(failure.status), "message": failure.message},
        "request_id": request_id,
    }
    return web.Response(
        body=json_bytes(body),
        status=failure.status,
        headers={"Content-Type": "application/json; charset=utf-8", **failure.headers},
    )
