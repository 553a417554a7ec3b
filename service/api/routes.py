"""Everything that is served, as a table of contents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from service.api import (
    anthropic,
    documentation,
    management,
    ollama,
    openai,
    pages,
    prompts,
    requests,
)
from service.api.access.auth import AUTH, OPEN_PATHS, show_callers_headers
from service.api.access.failed_sign_ins import FAILED_SIGN_INS, FailedSignIns
from service.api.access.origins import ORIGINS, AllowedOrigins
from service.api.context import CONFIG, HUB, JOBS, LONG_LIVED, POOL
from service.api.dropin.passing import PASSING, passing_bound
from service.api.dropin.unknown import NOTED, RELAYED, find_unknown
from service.api.http.aiohttp_internals import check_internals
from service.api.http.callers import CALLERS, Callers
from service.api.http.cross_origin import show_to_page
from service.api.http.failures import ERROR_SHAPES, ErrorShape, ErrorShapes, problem
from service.api.http.middlewares import around_handlers
from service.api.http.raw_replies import COALESCED_WRITES, name_server
from service.api.http.trailing_slash import accept_trailing_slashes
from service.api.http.unrouted import FIND_UNROUTED
from service.api.live import websocket
from service.api.live.feeds import FEEDS, Feeds
from service.api.live.websocket.stats import STATS, StatsChannel
from service.api.long_lived import LongLived
from service.api.management import backends, health
from service.coalescing import CoalescedWrites
from service.endpoints import ENDPOINTS

_DIALECT_SHAPES: Mapping[str, ErrorShape] = {
    "ollama": ollama.shape,
    "openai": openai.shape,
    "anthropic": anthropic.shape,
}
"""How each dialect that is named in :mod:`service.endpoints` tells errors."""


def add_routes(app: web.Application) -> None:
    """Serve all dialects, the websocket and the pages; the application has its configuration already."""
    check_internals()
    app[ORIGINS] = AllowedOrigins(app[CONFIG].server.allowed_origins)
    app[FAILED_SIGN_INS] = FailedSignIns()
    app[ERROR_SHAPES] = ErrorShapes(default=problem)
    app[OPEN_PATHS] = frozenset(route.path for route in (*pages.ROUTES, *documentation.ROUTES, *health.ROUTES)) | {
        "/metrics"
    }
    app.middlewares.append(around_handlers)

    shapes = app[ERROR_SHAPES]
    for endpoint in ENDPOINTS.values():
        shapes.register(endpoint.path, _DIALECT_SHAPES[endpoint.errors])
    # For paths that are no endpoint's: the shapes in which Ollama tells of them.
    for prefix, shape in (("/api", ollama.shape), ("/v1", openai.shape)):
        shapes.register(prefix, shape)
    for own in ("/api/v1", "/api/models", "/api/keys", "/api/token", "/api/stats", "/api/audit"):
        shapes.register(own, problem)

    ours = app.add_routes(
        [*prompts.ROUTES, *requests.ROUTES, *backends.ROUTES, *management.ROUTES, *health.ROUTES],
    )
    app.add_routes([*ollama.ROUTES, *openai.ROUTES, *anthropic.ROUTES])
    documents = app.add_routes(documentation.ROUTES)
    sockets = app.add_routes(websocket.ROUTES)
    shown = app.add_routes(pages.ROUTES)
    accept_trailing_slashes(app, answering=[*ours, *sockets], redirecting=[*documents, *shown])
    app[FIND_UNROUTED], app[NOTED] = find_unknown, set()

    pages.prepare_pages(app)
    documentation.prepare_documentation(app)
    app.cleanup_ctx.append(_followers)
    app.on_response_prepare.extend((show_callers_headers, name_server, show_to_page))
    app.on_shutdown.append(_send_away)


async def _followers(app: web.Application) -> AsyncIterator[None]:
    app[COALESCED_WRITES] = CoalescedWrites(asyncio.get_running_loop())
    feeds = app[FEEDS] = Feeds(app[JOBS], app[HUB])
    callers = app[CALLERS] = Callers()
    app[PASSING], app[RELAYED] = passing_bound(), passing_bound()
    keys = app[AUTH].keys
    long_lived = app[LONG_LIVED] = LongLived(keys.is_good)
    keys.changed.connect(long_lived.dismiss_holders)
    stats = app[STATS] = StatsChannel(app[JOBS], app[POOL])
    rounds = [asyncio.create_task(feeds.keep_looking()), asyncio.create_task(stats.keep_telling())]
    rounds.append(asyncio.create_task(callers.keep_looking()))
    yield
    for one in rounds:
        one.cancel()
    await asyncio.wait(rounds)


async def _send_away(app: web.Application) -> None:
    if LONG_LIVED in app:
        app[LONG_LIVED].dismiss()
