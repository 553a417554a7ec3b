"""What changes a backend, or acts with its account at ollama.com: for admins, at one backend, past the queue."""

from __future__ import annotations

import re

from aiohttp import web

from service.api.access.auth import require_admin
from service.api.dropin.managing import relay_for_admin
from service.errors import InvalidRequestError

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
_KEY = re.compile(r"[0-9A-Za-z_=-]{1,2048}")
"""A public key in base64, as it stands in an address."""


async def manage(request: web.Request) -> web.StreamResponse:
    """Relay an admin's request."""
    require_admin(request)
    resource = request.match_info.route.resource
    assert resource is not None
    return await relay_for_admin(request, resource.canonical)


async def blob(request: web.Request) -> web.StreamResponse:
    """The same for a blob. A digest that is none does not become a part of a backend's address: InvalidRequestError, in
    Ollama's words.
    """
    require_admin(request)
    digest = request.match_info["digest"]
    if not _DIGEST.fullmatch(digest):
        raise InvalidRequestError("invalid digest format")
    return await relay_for_admin(request, f"/api/blobs/{digest}")


async def user_key(request: web.Request) -> web.StreamResponse:
    """The same for a key by which ollama.com knows the backend. Raises InvalidRequestError for what is no key."""
    require_admin(request)
    key = request.match_info["key"]
    if not _KEY.fullmatch(key):
        raise InvalidRequestError("invalid key format")
    return await relay_for_admin(request, f"/api/user/keys/{key}")
