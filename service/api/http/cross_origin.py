"""Access for the pages of other origins (CORS): on every path, whether something is there or not."""

from __future__ import annotations

import re
from collections.abc import Collection

from aiohttp import hdrs, web
from multidict import CIMultiDict

from service.api.context import CONFIG
from service.errors import ForbiddenError

_MAX_AGE_SECONDS = 600
"""How long a browser need not ask again."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
"""A method, or the name of a header (RFC 9110, 5.6.2)."""


def is_allowed_origin(request: web.Request) -> bool:
    """Whether a page of this request's origin may call; a page of our own host and a program always may."""
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    allowed = request.app[CONFIG].server.allowed_origins
    return "*" in allowed or origin in allowed or origin.partition("://")[2] == request.host


async def answer_options(request: web.Request) -> web.StreamResponse:
    """Tell a page of an allowed origin that it may call whatever it asks for (a preflight): what is there, if anything,
    it learns from the call itself. Any other OPTIONS is 204, as Ollama's. Raises ForbiddenError.
    """
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD, "")
    if hdrs.ORIGIN not in request.headers or not _TOKEN.fullmatch(asked):
        response = web.Response(status=204)
    elif not is_allowed_origin(request):
        raise ForbiddenError("pages of this origin may not call (server.allowed_origins)")
    else:
        response = web.Response()
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = asked
        response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(_MAX_AGE_SECONDS)
        names = map(str.strip, request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "").split(","))
        if headers := ",".join(filter(_TOKEN.fullmatch, names)):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = headers
    if hdrs.EXPECT in request.headers:
        # The client may or may not send the body now, so what comes next on this connection is unknown.
        response.force_close()
    return response


async def show_to_page(request: web.Request, response: web.StreamResponse) -> None:
    """A hook, behind those that add headers: the page that asks may read the reply, and all headers that it has."""
    origin = request.headers.get("Origin")
    if origin is not None:
        add_cross_origin_headers(response.headers, origin, request.app[CONFIG].server.allowed_origins)


def add_cross_origin_headers(headers: CIMultiDict[str], origin: str | None, allowed: Collection[str]) -> None:
    """Let a page read a reply with these headers, if pages of its origin may. None: it could not be read which that is.

    No credentials: there are no cookies here, and a page sends a key in a header by itself.
    """
    if origin is None:
        shown = "*" if "*" in allowed else None
    else:
        # Anything may stand there, also what cannot be written into a head.
        is_allowed = ("*" in allowed and origin.isascii() and origin.isprintable()) or origin in allowed
        shown = origin if is_allowed else None
    if shown is None:
        return
    headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(sorted(set(headers)))
    headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = shown
    varies = headers.get(hdrs.VARY)
    if varies is None:
        headers[hdrs.VARY] = "Origin"
    elif "origin" not in varies.lower():
        headers[hdrs.VARY] = f"{varies}, Origin"
