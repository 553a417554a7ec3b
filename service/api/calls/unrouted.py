"""What Ollama's router says of a path or a method that it does not know (wire contract 0, 9.5)."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from service.api.failures import Failure

_TEXTS = {404: b"404 page not found", 405: b"405 method not allowed"}


def unrouted(failure: Failure) -> web.Response | None:
    """The reply for a request that has no route; None for any other failure."""
    if failure.error is not None or failure.status not in _TEXTS:
        return None
    headers = {"Content-Type": "text/plain", **failure.headers}
    return web.Response(body=_TEXTS[failure.status], status=failure.status, headers=headers)


def with_slashes(routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """The same paths with a slash too many, from which Ollama's router redirects."""
    return [web.route(route.method, route.path + "/", _redirected, **route.kwargs) for route in routes]


async def _redirected(request: web.Request) -> web.Response:
    url = request.rel_url
    location = str(url.with_path(url.raw_path.rstrip("/"), encoded=True, keep_query=True))
    return web.Response(status=301 if request.method == "GET" else 307, headers={"Location": location})
