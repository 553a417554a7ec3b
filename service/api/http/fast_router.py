"""The way in, which leads a request straight to its handler. Private to aiohttp are ``Application._make_request``,
``Request._match_info``, ``Server.request_factory`` and ``Server.request_handler``.

Whoever asks for a path without anything variable in it is led so.
aiohttp's own way looks through its resources, makes an object for what it has found and one for each middleware, again
for every request: a tenth of a whole submission. It stays for all other requests, but for those whose path has to be
tidied before anybody looks it up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from aiohttp.web_urldispatcher import MatchInfoError

from service.api.http.parameters import LONGEST_ADDRESS
from service.api.http.unrouted import is_untidy, lead_to_tidy

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_LONGEST_HEADER = 65 * 1024
"""Bytes of a header's name and value: tokens and cookies of single sign-on grow to 64 KiB."""
_MOST_HEADERS = 256
"""What proxies add on the way is far less. Ollama takes 1 MiB of headers in all; aiohttp does not add them up, so that
one connection could hold as many times the longest.
"""


class FastRouterRunner(web.AppRunner):
    """Runs the application, within bounds for what may come before a body."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(
            app,
            max_line_size=LONGEST_ADDRESS,
            max_field_size=_LONGEST_HEADER,
            max_headers=_MOST_HEADERS,
            **options,
        )

    async def setup(self) -> None:
        await super().setup()
        assert self.server is not None
        # What every handler asks for several times, and aiohttp looks for in what was found to be the request's path.
        own = type("Request", (web.Request,), {"app": self.app})
        self.server.request_factory = partial(self.app._make_request, _cls=own)
        self.server.request_handler = FastRouter(self.app, self.server.request_handler).lead


class FastRouter:
    """Leads requests to handlers; ``general`` leads those to whom it knows no shorter way."""

    def __init__(self, app: web.Application, general: _Handler) -> None:
        self._general = general
        (self._around,) = app.middlewares
        self._found: dict[tuple[str, str], tuple[web.UrlMappingMatchInfo, Handler]] = {}
        self._untidy = (_begun(app, MatchInfoError(web.HTTPNotFound())), lead_to_tidy)
        for resource in app.router.resources():
            if isinstance(resource, web.PlainResource):
                for route in resource:
                    self._found[route.method, resource.canonical] = (
                        _begun(app, web.UrlMappingMatchInfo({}, route)),
                        route.handler,
                    )

    def lead(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """The handler's answer to a request."""
        found = self._found.get((request.method, request.raw_path))
        if found is None and is_untidy(request):
            found = self._untidy
        elif found is None or hdrs.EXPECT in request.headers:
            return self._general(request)
        # Only of its class are requests made, and to ask for that is no small part of the way.
        own = cast(web.Request, request)
        # Nothing in it is of one request alone, so all of them share it.
        own._match_info, handler = found
        return self._around(own, handler)


def _begun(app: web.Application, found: web.UrlMappingMatchInfo) -> web.UrlMappingMatchInfo:
    found.add_app(app)
    found.freeze()
    return found
