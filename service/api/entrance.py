"""The way in: who asks for a path without anything variable in it is led straight to its handler.

aiohttp's own way looks through its resources, makes an object for what it has found and one for each middleware, again
for every request: a tenth of a whole submission. It stays for all other requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Runner(web.AppRunner):
    """Runs the application."""

    async def setup(self) -> None:
        await super().setup()
        assert self.server is not None
        self.server.request_handler = Entrance(self.app, self.server.request_handler).lead


class Entrance:
    """Leads requests to handlers; ``general`` leads those to whom it knows no shorter way."""

    def __init__(self, app: web.Application, general: _Handler) -> None:
        self._general = general
        (self._around,) = app.middlewares
        self._found: dict[tuple[str, str], web.UrlMappingMatchInfo] = {}
        for resource in app.router.resources():
            if isinstance(resource, web.PlainResource):
                for route in resource:
                    self._found[route.method, resource.canonical] = _found(app, route)

    def lead(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """The handler's answer to a request."""
        found = self._found.get((request.method, request.raw_path))
        if found is None or hdrs.EXPECT in request.headers:
            return self._general(request)
        assert isinstance(request, web.Request)
        # Nothing in it is of one request alone, so all of them share it.
        request._match_info = found
        return self._around(request, found.handler)


def _found(app: web.Application, route: web.AbstractRoute) -> web.UrlMappingMatchInfo:
    found = web.UrlMappingMatchInfo({}, route)
    found.add_app(app)
    found.freeze()
    return found
