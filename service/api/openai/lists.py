"""The models, as OpenAI's API lists them (wire contract 1.7)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import web

from service.api.context import POOL
from service.api.replies import json_reply
from service.backend.models import InstalledModel
from service.errors import NoBackendError, NotFoundError
from service.job import model_key


async def models(request: web.Request) -> web.Response:
    """All models of all backends; ``data`` is null when there are none, as with Ollama."""
    entries = [_entry(model) for model in (await _installed(request)).values()]
    return json_reply({"object": "list", "data": entries or None})


async def model(request: web.Request) -> web.Response:
    """One model; its name is echoed as it was asked for."""
    name = request.match_info["name"]
    found = (await _installed(request)).get(model_key(name))
    if found is None:
        raise NotFoundError(f"model '{name}' not found")
    return json_reply({**_entry(found), "id": name})


async def _installed(request: web.Request) -> dict[str, InstalledModel]:
    pool = request.app[POOL]
    if not any(backend.is_answering for backend in pool):
        raise NoBackendError("no backend answers; try again later")
    await pool.refresh_lists()
    found: dict[str, InstalledModel] = {}
    for backend in pool:
        for one in backend.installed or ():
            if backend.is_answering and backend.has_model(model_key(one.name)):
                found.setdefault(model_key(one.name), one)
    return found


def _entry(installed: InstalledModel) -> dict[str, Any]:
    namespace = installed.name.rpartition("/")[0].rpartition("/")[2] or "library"
    return {"id": installed.name, "object": "model", "created": _created(installed), "owned_by": namespace}


def _created(installed: InstalledModel) -> int:
    try:
        return int(datetime.fromisoformat(str(installed.entry.get("modified_at"))[:19] + "+00:00").timestamp())
    except ValueError:
        return 0
