"""Trading a key for a short-lived token."""

from __future__ import annotations

from aiohttp import web

from service.api.access.auth import AUTH
from service.api.access.caller import CALLER
from service.api.context import CLOCK
from service.api.http.json_replies import json_reply
from service.api.management.schema import TokenReply
from service.clock import zulu
from service.errors import UnauthenticatedError


async def trade(request: web.Request) -> web.StreamResponse:
    """For websockets and EventSources, which send it as ``auth`` message or ``?token=``."""
    caller = request[CALLER]
    if caller.key is None or caller.expires_at is not None:
        # If a token could be traded for a new one, it would never end.
        raise UnauthenticatedError("only an API key can be traded; send it as Authorization: Bearer …")
    token = request.app[AUTH].tokens.make(caller.key, caller.user)
    fields: TokenReply = {
        "access_token": token.text,
        "token_type": "bearer",
        "expires_in": max(0, token.expires_at - request.app[CLOCK].now_ms()) // 1000,
        "expires_at": zulu(token.expires_at),
    }
    return json_reply(request, fields)


ROUTES = (web.post("/api/token", trade),)
