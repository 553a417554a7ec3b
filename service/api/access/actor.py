"""Who a request's caller is to the audit."""

from __future__ import annotations

from aiohttp import web

from service.api.access.auth import AUTH
from service.api.access.caller import CALLER
from service.audit import Actor, ActorKind


def actor_of(request: web.Request) -> Actor:
    """The caller as what it does is written down."""
    caller, address = request[CALLER], request.app[AUTH].addresses.address_of(request)
    if caller.key is not None:
        return Actor(ActorKind.KEY, caller.key.id, caller.key.name, caller.user, address)
    if caller.is_admin:
        return Actor(ActorKind.ADMIN_SOCKET)
    return Actor(ActorKind.ADDRESS, address=address)
