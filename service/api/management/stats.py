"""The handlers of the statistics."""

from __future__ import annotations

from aiohttp import web

from service.api.access.auth import AUTH, require_admin
from service.api.access.caller import CALLER
from service.api.access.request_log import REQUEST_LOGGING
from service.api.http.json_replies import json_reply
from service.api.management.schema import PeriodReply
from service.api.management.translation import statistics_fields
from service.clock import zulu
from service.store.request_log import Scope


async def stats(request: web.Request) -> web.StreamResponse:
    """Of the caller's own key, person or address; an admin sees all."""
    caller = request[CALLER]
    own = Scope(caller.key_id, None if caller.is_front_end else caller.owner)
    scope = Scope() if caller.is_admin else own
    statistics = await request.app[REQUEST_LOGGING].log.statistics(scope)
    names = {key.id: key.name for key in request.app[AUTH].keys.listed()}
    return json_reply(request, statistics_fields(statistics, names))


async def reset(request: web.Request) -> web.StreamResponse:
    """A new period; nothing is deleted."""
    caller = require_admin(request)
    started_at = await request.app[REQUEST_LOGGING].log.begin_period(caller.key_id)
    period: PeriodReply = {"period_started_at": zulu(started_at)}
    return json_reply(request, period)


ROUTES = (web.get("/api/stats", stats), web.post("/api/stats/reset", reset))
