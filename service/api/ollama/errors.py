"""Errors as Ollama words them."""

from __future__ import annotations

from typing import NotRequired

from aiohttp import web
from typing_extensions import TypedDict

from service.api.http.failures import Failure
from service.api.http.json_replies import json_bytes
from service.api.http.unrouted import unrouted

_COMMAND_LINE = "ollama/"
"""How its User-Agent begins; the libraries for Python and JavaScript say ``ollama-python/`` and ``ollama-js/``."""


class OllamaError(TypedDict):
    """An error as Ollama words it."""

    error: str
    detail: NotRequired[str]
    """The same as ``error``: on ``/api/chat``, for who gets one object as a program written for another API."""
    signin_url: NotRequired[str]
    status: NotRequired[int]
    """In a stream that had signs of life only: the status that the refusal would have had."""


def shape(failure: Failure) -> web.Response:
    """``{"error": …}``; what has no route is told in text, as Ollama's router does (wire contract 0, 3.1).

    Ollama's own command line is told 403 in place of 401, which it takes for its cloud's: it hides our message, tells
    its user to sign in there, and exits with 0 (cmd/cmd.go, handleCloudAuthorizationError).
    """
    text = unrouted(failure)
    if text is not None:
        return text
    if failure.status == 401 and failure.agent.startswith(_COMMAND_LINE):
        failure = failure._replace(status=403, headers={})
    body: OllamaError = {"error": failure.message}
    if failure.has_detail:
        body["detail"] = failure.message
    return web.Response(
        body=json_bytes(body),
        status=failure.status,
        headers={"Content-Type": "application/json; charset=utf-8", **failure.headers},
    )
