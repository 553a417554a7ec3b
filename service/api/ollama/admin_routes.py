"""Pulling, pushing, creating and deleting models: for admins, at the backend they name, past the queue."""

from __future__ import annotations

import re

from aiohttp import web

from service.api.access.auth import require_admin
from service.api.context import POOL
from service.api.dropin.passing import first_answering, pass_on
from service.api.http.receiving import PassedBody
from service.backend.http.deadlines import Deadlines
from service.errors import InvalidRequestError, NoBackendError

_LIMITS = Deadlines(connect=5.0, first_byte=86_400.0, stall=3_600.0, attempt=86_400.0)
"""A pull takes as long as the network needs; without streaming, nothing comes before it is done."""


_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")


async def manage(request: web.Request) -> web.StreamResponse:
    """Relay an admin's request. Its body and Ollama's progress pass as they come."""
    require_admin(request)
    resource = request.match_info.route.resource
    assert resource is not None
    return await _relay(request, resource.canonical)


async def blob(request: web.Request) -> web.StreamResponse:
    """The same for a blob. A digest that is none does not become a part of a backend's address: InvalidRequestError, in
    Ollama's words.
    """
    require_admin(request)
    digest = request.match_info["digest"]
    if not _DIGEST.fullmatch(digest):
        raise InvalidRequestError("invalid digest format")
    return await _relay(request, f"/api/blobs/{digest}")


async def _relay(request: web.Request, path: str) -> web.StreamResponse:
    name = request.headers.get("X-Backend")
    backend = request.app[POOL].find(name) if name is not None else await first_answering(request)
    body = PassedBody(request) if request.can_read_body else None
    try:
        return await pass_on(request, path, body, backend, _LIMITS, most_bytes=None)
    except NoBackendError:
        if body is not None and body.stalled is not None:
            raise body.stalled from None
        raise
    finally:
        backend.wants_probe.set()
