"""Ollama's own API."""

from __future__ import annotations

from aiohttp import web

from service.api.dropin.dialect import Dialect
from service.api.dropin.queued import queued_routes
from service.api.http.operation import NDJSON
from service.api.http.unrouted import with_slashes
from service.api.ollama.account import me, recommendations, status
from service.api.ollama.admin_routes import blob, manage, user_key
from service.api.ollama.lists import loaded, show, tags, version
from service.api.ollama.pulling import pull
from service.api.ollama.translation import DOOR, describe, error_frame, heartbeat

DIALECT = Dialect(DOOR, describe, "missing request body", NDJSON, error_frame, heartbeat)

_ROUTES = (
    *queued_routes(DIALECT),
    web.get("/api/tags", tags),
    web.get("/api/ps", loaded, allow_head=False),
    web.get("/api/version", version),
    web.post("/api/show", show),
    web.get("/api/status", status, allow_head=False),
    web.post("/api/me", me),
    web.get("/api/experimental/model-recommendations", recommendations, allow_head=False),
    web.post("/api/pull", pull),
    web.post("/api/push", manage),
    web.post("/api/create", manage),
    web.post("/api/copy", manage),
    web.delete("/api/delete", manage),
    web.post("/api/blobs/{digest}", blob),
    web.head("/api/blobs/{digest}", blob),
    web.post("/api/signout", manage),
    web.delete("/api/user/keys/{key}", user_key),
    web.post("/api/experimental/web_search", manage),
    web.post("/api/experimental/web_fetch", manage),
)
ROUTES = (*_ROUTES, *with_slashes(_ROUTES))
