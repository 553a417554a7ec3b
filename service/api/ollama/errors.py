"""Errors as Ollama words them."""

from __future__ import annotations

from aiohttp import web

from service.api.calls.unrouted import unrouted
from service.api.failures import Failure
from service.api.replies import json_bytes


def shape(failure: Failure) -> web.Response:
    """``{"error": …}``; what has no route is told in text, as Ollama's router does (wire contract 0, 3.1)."""
    text = unrouted(failure)
    if text is not None:
        return text
    return web.Response(
        body=json_bytes({"error": failure.message}),
        status=failure.status,
        headers={"Content-Type": "application/json; charset=utf-8", **failure.headers},
    )
