"""The way in, which leads a request straight to its handler. Private to aiohttp are ``Application._make_request``,
``Request._match_info``, ``Server.request_factory``, ``Server.request_handler``, ``Server.connection_made``,
``RequestHandler._max_msg_queue_size`` and ``RequestHandler._msg_queue_resume_size``.

Paths without a variable part are found in one table. aiohttp's own router looks through its resources and makes one
object for the match and one for each middleware, which takes a tenth of a whole submission. It routes all other
requests, except preflights and those whose path has to be tidied first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_urldispatcher import MatchInfoError

from service.api.access.client_address import ClientAddresses
from service.api.context import CONFIG
from service.api.http.caller_connection import LONGEST_HEADER, MOST_HEADERS, CallersServer
from service.api.http.connection_bounds import Bounds, Connections
from service.api.http.cross_origin import answer_options
from service.api.http.failures import ERROR_SHAPES
from service.api.http.parameters import LONGEST_ADDRESS
from service.api.http.unrouted import is_untidy, lead_to_tidy
from service.api.http.unserved import is_unusual, unserved
from service.tcp_keepalive import find_the_vanished

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


_MOST_READ_AHEAD = 2
"""Requests of one connection that are read while an earlier one is answered. aiohttp reads 32, each with half a MiB of
its body.
"""


class FastRouterRunner(web.AppRunner):
    """Runs the application with the fast router, and with bounds on the head of a request."""

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(
            app,
            max_line_size=LONGEST_ADDRESS,
            max_field_size=LONGEST_HEADER,
            max_headers=MOST_HEADERS,
            # What nobody has asked for yet is neither unpacked nor read to its end (:mod:`service.api.http.receiving`).
            auto_decompress=False,
            lingering_time=0.0,
            **options,
        )

    async def setup(self) -> None:
        await super().setup()
        assert self.server is not None
        self.server.__class__ = CallersServer
        server = cast(CallersServer, self.server)
        server.shapes = self.app[ERROR_SHAPES]
        addresses = ClientAddresses(self.app[CONFIG].server.trusted_proxies)
        server.allowed_origins = allowed = self.app[CONFIG].server.allowed_origins
        server.callers = Connections(addresses, Bounds.of_this_process(), any_page_may_call="*" in allowed)
        # Every handler asks for ``request.app`` several times, and aiohttp looks it up in the match each time.
        own = type("Request", (web.Request,), {"app": self.app})
        self.server.request_factory = partial(self.app._make_request, _cls=own)
        self.server.request_handler = FastRouter(self.app, self.server.request_handler).lead
        # The options of a listening socket pass on to its connections on Linux only.
        self.server.connection_made = partial(_accepted, self.server.connection_made)  # type: ignore[method-assign]


def _accepted(
    note: Callable[[RequestHandler, asyncio.Transport], None], handler: RequestHandler, transport: asyncio.Transport
) -> None:
    """A caller has connected, to whichever of the listening sockets."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        find_the_vanished(connection)
    handler._max_msg_queue_size, handler._msg_queue_resume_size = _MOST_READ_AHEAD, 1
    note(handler, transport)


class FastRouter:
    """Leads requests to handlers; ``general`` is aiohttp's own way, for those that have no shorter one."""

    def __init__(self, app: web.Application, general: _Handler) -> None:
        self._general = general
        (self._around,) = app.middlewares
        self._found: dict[tuple[str, str], tuple[web.UrlMappingMatchInfo, Handler]] = {}
        self._nowhere = _begun(app, MatchInfoError(web.HTTPNotFound()))
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
        if is_unusual(request) and (refuse := unserved(request)) is not None:
            found = self._nowhere, refuse
        elif found is None and request.method == hdrs.METH_OPTIONS:
            found = self._nowhere, answer_options
        elif found is None and is_untidy(request):
            found = self._nowhere, lead_to_tidy
        elif found is None or hdrs.EXPECT in request.headers:
            return self._general(request)
        # Every request is of this class (``setup``), and to check that takes a good part of the time spent here.
        own = cast(web.Request, request)
        # The match holds nothing of a single request, so all of them share it.
        own._match_info, handler = found
        return self._around(own, handler)


def _begun(app: web.Application, found: web.UrlMappingMatchInfo) -> web.UrlMappingMatchInfo:
    found.add_app(app)
    found.freeze()
    return found
