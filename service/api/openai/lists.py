"""The models, as OpenAI's API lists them (wire contract 1.7)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from urllib.parse import quote

from aiohttp import web

from service.api.access.admission import require_model
from service.api.context import POOL
from service.api.dropin.installed import ModelList, installed, last_told, reachable
from service.api.dropin.passing import pass_on, pass_to_first, quick
from service.api.dropin.reading import is_name
from service.api.dropin.unnamed import no_such_model
from service.api.http.json_replies import json_bytes
from service.api.http.raw_replies import whole_reply
from service.backend.models import InstalledModel
from service.endpoints import Kind
from service.errors import NoBackendError, NotFoundError

_NO_NAME = re.compile(r"[/\\%\0-\x1f\x7f\ud800-\udfff]|^\.+$")
"""What is no name of one step, and would lead elsewhere where a backend, or a proxy before it, tidies paths."""


async def models(request: web.Request) -> web.StreamResponse:
    """All models of all backends; ``data`` is null when there are none, as with Ollama. While no backend answers it is
    the last list, and says how old it is.
    """
    backends = await reachable(request)
    if len(backends) == 1 and not backends[0].config.models:
        try:
            return await pass_on(request, "/v1/models", None, backends[0], quick(request))
        except NoBackendError:
            return _listed(request, last_told(request, backends))
    return _listed(request, await installed(request, backends))


async def model(request: web.Request) -> web.StreamResponse:
    """One model; its name is echoed as it was asked for. Names with ``/`` are found too."""
    name = request.match_info["name"]
    if not is_name(name):
        raise no_such_model(Kind.WRITES, name)
    require_model(request, name)
    listed = await installed(request, await reachable(request))
    found = listed.find(name)
    if found is None and not _NO_NAME.search(name) and not request.app[POOL].catalogue.hides(name):
        return await pass_to_first(request, f"/v1/models/{quote(name, safe=':')}", None, limits=quick(request))
    if found is None:
        raise NotFoundError(f"model '{name}' not found")
    return _reply(request, {**_entry(found), "id": name}, listed.headers)


def _reply(request: web.Request, value: dict[str, Any], headers: dict[str, str]) -> web.StreamResponse:
    told = (("Content-Type", "application/json"), *headers.items())
    return whole_reply(request, 200, told, json_bytes(value) + b"\n")


def _listed(request: web.Request, found: ModelList) -> web.StreamResponse:
    data = [_entry(model) for model in found.newest_first]
    return _reply(request, {"object": "list", "data": data or None}, found.headers)


def _entry(installed: InstalledModel) -> dict[str, Any]:
    namespace = installed.name.rpartition("/")[0].rpartition("/")[2] or "library"
    return {"id": installed.name, "object": "model", "created": _created(installed), "owned_by": namespace}


def _created(installed: InstalledModel) -> int:
    try:
        return int(datetime.fromisoformat(str(installed.entry.get("modified_at"))[:19] + "+00:00").timestamp())
    except ValueError:
        return 0
