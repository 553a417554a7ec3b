"""Errors as OpenAI's API words them, in the way Ollama does (wire contract 3.1)."""

from __future__ import annotations

from aiohttp import web
from typing_extensions import TypedDict

from service.api.http.failures import Failure
from service.api.http.json_replies import json_bytes
from service.api.http.unrouted import unrouted
from service.api.openai.translation import error_type


class OpenAIErrorDetails(TypedDict):
    """What is the matter, in OpenAI's words."""

    message: str
    type: str
    param: str | None
    code: str | int | None


class OpenAIError(TypedDict):
    """An error as OpenAI's API words it."""

    error: OpenAIErrorDetails


def shape(failure: Failure) -> web.Response:
    """``{"error": {…}}``; what has no route is told in text."""
    text = unrouted(failure)
    if text is not None:
        return text
    body: OpenAIError = {
        "error": {
            "message": failure.message,
            "type": error_type(failure.status),
            "param": failure.field or None,
            "code": None,
        }
    }
    return web.Response(
        body=json_bytes(body),
        status=failure.status,
        headers={"Content-Type": "application/json; charset=utf-8", **failure.headers},
    )
