"""What Ollama tells of its models and its version, over all backends. Nothing here waits for a turn, so it stays quick
while the backends are busy.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from aiohttp import web

from service.api.access.admission import require_model
from service.api.context import POOL
from service.api.dropin.installed import ModelList, answering, installed, last_told, reachable
from service.api.dropin.passing import pass_on, pass_to_first, quick
from service.api.dropin.reading import is_name, read_call
from service.api.dropin.unnamed import no_such_model
from service.api.http.bodies import read_json
from service.api.http.json_replies import json_reply
from service.backend.pool import Backend
from service.endpoints import Kind
from service.errors import BackendError, NoBackendError, NotFoundError
from service.job import model_key


async def tags(request: web.Request) -> web.StreamResponse:
    """The installed models of all backends, the newest first; a single backend's own reply, if it comes quickly. While
    no backend answers it is the last list, and says how old it is.
    """
    backends = await reachable(request)
    if len(backends) == 1 and not backends[0].config.models:
        try:
            return await pass_on(request, "/api/tags", None, backends[0], quick(request))
        except NoBackendError:
            return _tags(request, last_told(request, backends))
    return _tags(request, await installed(request, backends))


async def loaded(request: web.Request) -> web.StreamResponse:
    """The loaded models of all backends, those that stay longest first."""
    backends = await answering(request)
    if len(backends) == 1:
        try:
            return await pass_on(request, "/api/ps", None, backends[0], quick(request))
        except NoBackendError:
            return json_reply(request, {"models": [model.entry for model in backends[0].loaded]})
    seconds = request.app[POOL].catalogue.patience_seconds
    lists = await asyncio.gather(*(_loaded_at(backend, seconds) for backend in backends))
    entries = [entry for entries in lists for entry in entries]
    return json_reply(
        request, {"models": sorted(entries, key=lambda entry: str(entry.get("expires_at")), reverse=True)}
    )


async def version(request: web.Request) -> web.StreamResponse:
    """The lowest version of the backends that answer, else of those that once did: what it can do, all can."""
    pool = request.app[POOL]
    if not any(backend.version for backend in pool):
        await pool.catalogue.refresh()
    known = [backend for backend in pool if backend.version]
    versions = [one.version for one in known if one.is_answering and one.version] or [
        one.version for one in known if one.version
    ]
    if not versions:
        raise NoBackendError("no backend has answered yet; try again later")
    return json_reply(request, {"version": min(versions, key=_numbers)})


async def show(request: web.Request) -> web.StreamResponse:
    """What a backend that has the model says of it. Raises NotFoundError for one that nobody may use."""
    catalogue = request.app[POOL].catalogue
    body = await read_json(request)
    fields = read_call(body)
    name = fields.get("model") or fields.get("name")
    model = name if isinstance(name, str) else None
    if model and not is_name(model):
        raise no_such_model(Kind.WRITES, model)
    if model is not None:
        require_model(request, model)
    if model is not None and not await catalogue.look_for(model) and catalogue.hides(model):
        raise NotFoundError(f"model '{model}' not found")
    return await pass_to_first(request, "/api/show", body, model)


def _tags(request: web.Request, found: ModelList) -> web.StreamResponse:
    entries = [model.entry for model in found.newest_first]
    return json_reply(request, {"models": entries}, headers=found.headers)


async def _loaded_at(backend: Backend, seconds: float) -> list[dict[str, Any]]:
    try:
        async with asyncio.timeout(seconds):
            models = await backend.client.ps()
    except (BackendError, TimeoutError):
        # What it last had is better than a list without it.
        models = backend.loaded
    return [model.entry for model in models if not backend.config.models or backend.has_model(model_key(model.name))]


def _numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version.partition("-")[0])]
