"""The models of all backends together: each once, under the name that the first backend gives it."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from service.api.context import POOL
from service.backend.backend import Backend
from service.backend.models import InstalledModel
from service.errors import NoBackendError
from service.job import model_key


@dataclass(frozen=True, slots=True)
class Installed:
    """A model, and where it may be used."""

    model: InstalledModel
    backends: list[Backend] = field(default_factory=list)


async def answering(request: web.Request) -> list[Backend]:
    """The backends that answer. Raises NoBackendError when none does."""
    pool = request.app[POOL]
    backends = [backend for backend in pool if backend.is_answering]
    if not backends:
        # Right after the start no backend was asked yet.
        await pool.catalogue.refresh()
        backends = [backend for backend in pool if backend.is_answering]
    if not backends:
        raise NoBackendError("no backend answers; try again later")
    return backends


async def installed(request: web.Request) -> dict[str, Installed]:
    """The models by key, as the backends list them now. Raises NoBackendError."""
    before = await answering(request)
    pool = request.app[POOL]
    await pool.catalogue.refresh()
    backends = [backend for backend in pool if backend.is_answering] or before
    found: dict[str, Installed] = {}
    for backend in backends:
        for model in backend.installed or ():
            key = model_key(model.name)
            if backend.has_model(key):
                found.setdefault(key, Installed(model)).backends.append(backend)
    return found
