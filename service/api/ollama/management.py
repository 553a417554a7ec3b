"""Pulling, pushing, creating and deleting models: for admins, at the backend they name, past the queue."""

from __future__ import annotations

from aiohttp import web

from service.api.calls.passing import first_answering, pass_on
from service.api.context import POOL
from service.backend.pool import Backend
from service.backend.watch import Limits
from service.errors import ForbiddenError, NotFoundError

_LIMITS = Limits(connect=5.0, first_byte=600.0, stall=600.0, attempt=86_400.0)
"""A pull lasts as long as the network needs, and says how far it is."""


async def manage(request: web.Request) -> web.StreamResponse:
    """Relay one request of an admin's, its body and its progress as they come."""
    require_admin(request)
    backend = _named(request) or first_answering(request)
    body = request.content.iter_any() if request.can_read_body else None
    try:
        return await pass_on(request, request.path, body, backend, _LIMITS)
    finally:
        backend.wants_probe.set()


def require_admin(request: web.Request) -> None:
    """Nobody is an admin until there are keys."""
    raise ForbiddenError("models are managed with an admin key only")


def _named(request: web.Request) -> Backend | None:
    name = request.headers.get("X-Backend")
    if name is None:
        return None
    for backend in request.app[POOL]:
        if backend.name == name:
            return backend
    names = ", ".join(backend.name for backend in request.app[POOL])
    raise NotFoundError(f"X-Backend: there is no backend {name!r}; there are: {names}")
