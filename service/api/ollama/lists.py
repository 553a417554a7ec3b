"""What Ollama says of itself, over all backends: quick while inference is saturated, since none of it waits for a
turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web

from service.api.calls.passing import first_answering, pass_on
from service.api.calls.reading import first_object, member
from service.api.context import POOL
from service.api.replies import json_reply
from service.backend.pool import Backend
from service.errors import NoBackendError
from service.job import model_key


async def tags(request: web.Request) -> web.StreamResponse:
    """The installed models of all backends, the newest first."""
    answering = _answering(request)
    if len(answering) == 1 and not answering[0].config.models:
        return await pass_on(request, "/api/tags", None, answering[0])
    await request.app[POOL].refresh_lists()
    entries = list(_distinct(answering, _installed_entries))
    return json_reply({"models": sorted(entries, key=lambda entry: str(entry.get("modified_at")), reverse=True)})


async def loaded(request: web.Request) -> web.StreamResponse:
    """The loaded models of all backends."""
    answering = _answering(request)
    if len(answering) == 1:
        return await pass_on(request, "/api/ps", None, answering[0])
    lists = await asyncio.gather(*(one.client.ps() for one in answering), return_exceptions=True)
    entries = [model.entry for models in lists if not isinstance(models, BaseException) for model in models]
    return json_reply({"models": entries})


async def version(request: web.Request) -> web.StreamResponse:
    """The version of the first backend that answers, or of one that has answered before."""
    known = [backend.version for backend in request.app[POOL] if backend.version]
    answering = [backend for backend in request.app[POOL] if backend.is_answering]
    if not known:
        raise NoBackendError("no backend has answered yet; try again later")
    return json_reply({"version": answering[0].version if answering else known[0]})


async def show(request: web.Request) -> web.StreamResponse:
    """What the backend that has the model says of it."""
    body = await request.read()
    fields = first_object(body) or {}
    model = member(fields, "model") or member(fields, "name")
    if isinstance(model, str):
        await request.app[POOL].look_for(model)
    backend = first_answering(request, model if isinstance(model, str) else None)
    return await pass_on(request, "/api/show", body, backend)


def _answering(request: web.Request) -> list[Backend]:
    answering = [backend for backend in request.app[POOL] if backend.is_answering]
    if not answering:
        raise NoBackendError("no backend answers; try again later")
    return answering


def _installed_entries(backend: Backend) -> Iterable[dict[str, Any]]:
    return (model.entry for model in backend.installed or () if backend.has_model(model_key(model.name)))


def _distinct(
    backends: Iterable[Backend], entries: Callable[[Backend], Iterable[dict[str, Any]]]
) -> Iterable[dict[str, Any]]:
    seen: set[str] = set()
    for backend in backends:
        for entry in entries(backend):
            key = model_key(str(entry.get("name") or entry.get("model")))
            if key not in seen:
                seen.add(key)
                yield entry
