"""What Ollama's router says, in text, of a path or a method that it does not know (wire contract 0)."""

from __future__ import annotations

from aiohttp import web

from service.api.failures import Failure

_TEXTS = {404: "404 page not found", 405: "405 method not allowed"}


def unrouted(failure: Failure) -> web.Response | None:
    """The reply for a request that has no route; None for any other failure."""
    if failure.error is not None or failure.status not in _TEXTS:
        return None
    return web.Response(text=_TEXTS[failure.status], status=failure.status, headers=failure.headers)
