"""What Ollama answers at a path or with a method that it does not know, and where it redirects paths that are written
with needless parts (wire contract 0, 9.5; measured).
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Iterable
from html import escape
from http import HTTPStatus
from urllib.parse import quote

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from yarl import URL

from service.api.http.failures import Failure

FIND_UNROUTED: web.AppKey[Callable[[web.Request], Awaitable[Handler | None]]] = web.AppKey("find_unrouted")
"""Finds who answers at a path without a route, and for whom (``request[CALLER]``); None: there is nothing."""

OWN: web.AppKey[frozenset[web.AbstractResource | None]] = web.AppKey("own")
"""What is Corral's own, and not Ollama's too."""

_TEXTS = {404: b"404 page not found", 405: b"405 method not allowed"}
_LEFT_AS_IT_IS = "/%?:@!$&'()*+,;=~"
"""Characters that are not escaped in a redirection. The backslash is: browsers read it as a slash, and what follows two
slashes as a host.
"""


def unrouted(failure: Failure) -> web.Response | None:
    """The reply for a request that has no route; None for any other failure."""
    if failure.error is not None or failure.status not in _TEXTS:
        return None
    headers = {"Content-Type": "text/plain", **failure.headers}
    return web.Response(body=_TEXTS[failure.status], status=failure.status, headers=headers)


def is_unrouted(request: web.Request, handler: Handler) -> bool:
    """Whether this handler is aiohttp's own for a path that nobody has (404, and not 405)."""
    match = request.match_info
    return isinstance(match.http_exception, web.HTTPNotFound) and handler == match.handler


def with_slashes(routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """The same paths with one slash more at the end, from which Ollama's router redirects."""
    return [
        web.route(route.method, route.path + "/", _without_slash, expect_handler=_expect_nothing, **route.kwargs)
        for route in routes
    ]


def is_untidy(request: web.BaseRequest) -> bool:
    """Whether the path holds needless segments (``//``, ``/./``, ``/x/../``)."""
    target = request.raw_path
    if "//" not in target and "/." not in target:
        return False
    # They may also stand in the query, and a target may begin with a host.
    path = request.rel_url.raw_path
    return path.startswith("/") and path != _tidy(path)


async def lead_to_tidy(request: web.Request) -> web.Response:
    """Redirect to the path without such segments. As in Ollama, it does not matter whether anything is there. To what
    is Corral's own a relative reference leads, which holds behind a proxy that serves all below a path of its own.
    """
    path = request.rel_url.raw_path
    tidy = _tidy(path)
    found = await request.app.router.resolve(request.clone(rel_url=URL.build(path=tidy, encoded=True)))
    # Up to the root, empty segments counted. Those with dots no client counts, and hardly one sends.
    if found.route.resource in request.app[OWN] and "/." not in path:
        tidy = "../" * (path.count("/") - 1) + tidy[1:]
    return redirection(request, 307, tidy)


async def _without_slash(request: web.Request) -> web.Response:
    return redirection(request, 301 if request.method == "GET" else 307, request.rel_url.raw_path.removesuffix("/"))


async def _expect_nothing(_request: web.Request) -> None:
    """Do not tell a client that expects ``100 Continue`` to go on: the body belongs to its next request."""


def _tidy(path: str) -> str:
    """The path without needless segments; it begins with exactly one slash. Nothing is decoded: an escaped slash stays
    a part of a name.
    """
    tidy = posixpath.normpath("/" + path.lstrip("/"))
    return tidy + "/" if path.endswith("/") and tidy != "/" else tidy


def redirection(request: web.Request, status: int, path: str) -> web.Response:
    """Lead to this path, which may be relative to the request's; the query goes along."""
    query = request.rel_url.raw_query_string
    location = quote(f"{path}?{query}" if query else path, safe=_LEFT_AS_IT_IS, errors="surrogateescape")
    response = web.Response(status=status, headers={"Location": location})
    if hdrs.EXPECT in request.headers:
        # The client may or may not send the body now, so what comes next on this connection is unknown.
        response.force_close()
    if request.method in ("GET", "HEAD"):
        response.content_type, response.charset = "text/html", "utf-8"
        response.text = f'<a href="{escape(location)}">{HTTPStatus(status).phrase}</a>.\n\n'
    return response
