"""``POST /api/pull``. Some programs send one at every start, for a model that is there; they are told so without an
admin's key. Everything that makes a backend fetch something is the admins'.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from service.api.access.admission import require_model
from service.api.access.auth import require_admin
from service.api.access.caller import CALLER
from service.api.context import POOL
from service.api.dropin.managing import relay_for_admin
from service.api.dropin.reading import is_name, read_call
from service.api.dropin.unnamed import wrong_type
from service.api.http.bodies import read_json
from service.api.http.json_replies import json_bytes
from service.api.http.operation import JSON, NDJSON
from service.job import model_key

_PATH = "/api/pull"
_TYPES = (
    *((name, str, "string") for name in ("model", "name", "username", "password")),
    *((name, bool, "bool") for name in ("insecure", "stream")),
)
_SUCCESS = json_bytes({"status": "success"})


async def pull(request: web.Request) -> web.StreamResponse:
    """Relay an admin's request, as there may be something newer. Tell anybody else that a model is there which a
    backend that answers has, and the caller may use.

    Raises UnauthenticatedError or ForbiddenError where it is not, and InvalidRequestError for a body that Ollama could
    read in another way.
    """
    if request[CALLER].is_admin:
        return await relay_for_admin(request, _PATH)
    body = await read_json(request)
    fields = read_call(body) if body else {}
    if not await _is_there(request, fields.get("model") or fields.get("name")):
        require_admin(request)
    for name, kind, wanted in _TYPES:
        if (value := fields.get(name)) is not None and not isinstance(value, kind):
            raise wrong_type(value, f"PullRequest.{name}", wanted)
    if fields.get("stream") is False:
        return web.Response(body=_SUCCESS, headers={"Content-Type": JSON})
    return web.Response(body=_SUCCESS + b"\n", headers={"Content-Type": NDJSON})


async def _is_there(request: web.Request, name: Any) -> bool:
    """Whether a backend that answers has the model. Raises ForbiddenError for one that the caller may not use."""
    if not isinstance(name, str) or not is_name(name):
        return False
    pool, key = request.app[POOL], model_key(name)
    require_model(request, name)
    await pool.catalogue.look_for(name)
    return any(backend.is_answering and backend.has_model(key) for backend in pool)
