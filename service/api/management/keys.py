"""The handlers of key management: for admins, whether or not keys are required."""

from __future__ import annotations

from aiohttp import web

from service.api.access.actor import actor_of
from service.api.access.auth import AUTH, require_admin
from service.api.context import CLOCK, REVOCATIONS
from service.api.http.bodies import read_object
from service.api.http.json_replies import json_reply
from service.api.http.parameters import query_of
from service.api.http.trailing_slash import below
from service.keys.shapes import CreatedKey, KeyList, KeyRequest, RevocationQuery, key_fields, to_new_key
from service.validation import validated


async def listed(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    now = request.app[CLOCK].now_ms()
    found: KeyList = {"keys": [key_fields(key, now) for key in request.app[AUTH].keys.listed()]}
    return json_reply(request, found)


async def create(request: web.Request) -> web.StreamResponse:
    """The only reply that ever holds the key itself."""
    require_admin(request)
    asked = validated(KeyRequest, await read_object(request))
    key, text = await request.app[AUTH].keys.create(to_new_key(asked), by=actor_of(request))
    created: CreatedKey = {**key_fields(key, request.app[CLOCK].now_ms()), "key": text}
    return json_reply(request, created, status=201, headers={"Location": below(request, key.id)})


async def shown(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    key = request.app[AUTH].keys.shown(request.match_info["id"])
    return json_reply(request, key_fields(key, request.app[CLOCK].now_ms()))


async def revoke(request: web.Request) -> web.StreamResponse:
    """The key opens nothing any more. It stays in the list, and its requests stay in the statistics; its jobs end."""
    require_admin(request)
    keeps_jobs = query_of(request, RevocationQuery).keep_jobs
    key_id, by = request.match_info["id"], actor_of(request)
    key = await request.app[REVOCATIONS].revoke(key_id, keeps_jobs=keeps_jobs, by=by)
    return json_reply(request, key_fields(key, request.app[CLOCK].now_ms()))


ROUTES = (
    web.get("/api/keys", listed),
    web.post("/api/keys", create),
    web.get("/api/keys/{id}", shown),
    web.delete("/api/keys/{id}", revoke),
)
