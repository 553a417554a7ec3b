"""Access for the pages of other origins (CORS): aiohttp-cors answers on every route, and we on paths without one."""

from __future__ import annotations

from collections.abc import Iterable

import aiohttp_cors
from aiohttp import web

from service.api.context import CONFIG


def allow_cross_origin(app: web.Application, routes: Iterable[web.AbstractRoute]) -> None:
    """Let pages of the configured origins call these routes, preflights included."""
    # No credentials: there are no cookies here, and a page sends a key in a header by itself.
    options = {"allow_credentials": False, "expose_headers": "*", "allow_headers": "*", "max_age": 600}
    cross_origin = aiohttp_cors.setup(app, defaults=dict.fromkeys(app[CONFIG].server.allowed_origins, options))
    for route in routes:
        cross_origin.add(route)
    _spare_requests_without_origin(app)


def _spare_requests_without_origin(app: web.Application) -> None:
    """Ask aiohttp-cors only for requests with an Origin. It looks up the route's settings before it checks for one, and
    for programs, which are most callers, that is a twentieth of the whole request.
    """
    add_headers = app.on_response_prepare.pop()

    async def add_headers_for_pages(request: web.Request, response: web.StreamResponse) -> None:
        if "Origin" not in request.headers:
            return
        if request.match_info.http_exception is None:
            await add_headers(request, response)
        else:
            # aiohttp-cors sees no route here, and without its headers a browser hides the answer from the page.
            _add_headers_without_route(request, response)

    app.on_response_prepare.append(add_headers_for_pages)


def is_allowed_origin(request: web.Request) -> bool:
    """Whether a page of this request's origin may call; a page of our own host and a program always may."""
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    allowed = request.app[CONFIG].server.allowed_origins
    return "*" in allowed or origin in allowed or origin.partition("://")[2] == request.host


def _add_headers_without_route(request: web.Request, response: web.StreamResponse) -> None:
    """Do for a path without a route what aiohttp-cors does for all others."""
    origin = request.headers["Origin"]
    allowed = request.app[CONFIG].server.allowed_origins
    if "*" in allowed or origin in allowed:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = ", ".join(sorted(set(response.headers)))
