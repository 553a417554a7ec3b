"""What Ollama says of a path or a method that it does not know, and where it sends the paths that it would know if they
were written otherwise (wire contract 0, 9.5; measured).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from html import escape
from http import HTTPStatus
from urllib.parse import quote

from aiohttp import hdrs, web

from service.api.http.failures import Failure

_TEXTS = {404: b"404 page not found", 405: b"405 method not allowed"}
_LEFT_AS_IT_IS = "/%?:@!$&'()*+,;=~"
"""In an address to go to. A backslash is not: to browsers it is a slash, and after two of them comes a host."""


def unrouted(failure: Failure) -> web.Response | None:
    """The reply for a request that has no route; None for any other failure."""
    if failure.error is not None or failure.status not in _TEXTS:
        return None
    headers = {"Content-Type": "text/plain", **failure.headers}
    return web.Response(body=_TEXTS[failure.status], status=failure.status, headers=headers)


def with_slashes(routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """The same paths with a slash too many, from which Ollama's router redirects."""
    return [
        web.route(route.method, route.path + "/", _without_slash, expect_handler=_expect_nothing, **route.kwargs)
        for route in routes
    ]


def is_untidy(request: web.BaseRequest) -> bool:
    """Whether the path holds segments that say nothing (``//``, ``/./``, ``/x/../``)."""
    target = request.raw_path
    if "//" not in target and "/." not in target:
        return False
    # The whole target may have them in its query, or a host in front.
    path = request.rel_url.raw_path
    return path.startswith("/") and path != _tidy(path)


async def lead_to_tidy(request: web.Request) -> web.Response:
    """Send the caller to the same path without such segments, whether there is anything or not, as Ollama does."""
    return _redirection(request, 307, _tidy(request.rel_url.raw_path))


async def _without_slash(request: web.Request) -> web.Response:
    return _redirection(request, 301 if request.method == "GET" else 307, request.rel_url.raw_path.removesuffix("/"))


async def _expect_nothing(_request: web.Request) -> None:
    """Who asks before it sends a body is not told to go on: the body belongs to the request that follows."""


def _tidy(path: str) -> str:
    """Nothing is decoded: an escaped slash stays a part of a name. The result begins with one slash, never with two."""
    tidy = posixpath.normpath("/" + path.lstrip("/"))
    return tidy + "/" if path.endswith("/") and tidy != "/" else tidy


def _redirection(request: web.Request, status: int, path: str) -> web.Response:
    query = request.rel_url.raw_query_string
    location = quote(f"{path}?{query}" if query else path, safe=_LEFT_AS_IT_IS, errors="surrogateescape")
    response = web.Response(status=status, headers={"Location": location})
    if hdrs.EXPECT in request.headers:
        # What comes next on this connection may be the body, or not.
        response.force_close()
    if request.method in ("GET", "HEAD"):
        response.content_type, response.charset = "text/html", "utf-8"
        response.text = f'<a href="{escape(location)}">{HTTPStatus(status).phrase}</a>.\n\n'
    return response
