"""The models of all backends together: each once, under the name that the first backend gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from service.api.context import CLOCK, POOL
from service.backend.backend import Backend
from service.backend.models import InstalledModel
from service.errors import NoBackendError
from service.job import model_key

LIST_AGE = "X-List-Age-Seconds"


@dataclass(frozen=True, slots=True)
class ModelList:
    """Models by key. Where nobody could be asked it is what was told last, and has an age."""

    models: Mapping[str, InstalledModel]
    age_seconds: int | None = None
    """How old its oldest part is; None for one that was told just now."""

    @property
    def headers(self) -> dict[str, str]:
        """What a reply says of the list."""
        return {} if self.age_seconds is None else {LIST_AGE: str(self.age_seconds)}

    @property
    def newest_first(self) -> list[InstalledModel]:
        return sorted(self.models.values(), key=lambda model: str(model.entry.get("modified_at")), reverse=True)

    def find(self, name: str) -> InstalledModel | None:
        """The model of this name. Raises NoBackendError where it is not in a list that has an age: it may be there by
        now.
        """
        found = self.models.get(model_key(name))
        if found is None and self.age_seconds is not None:
            raise _nobody()
        return found


async def reachable(request: web.Request) -> list[Backend]:
    """The backends that answer; empty when none does."""
    pool = request.app[POOL]
    if not any(backend.is_answering for backend in pool):
        # Right after the start no backend was asked yet.
        await pool.catalogue.refresh()
    return [backend for backend in pool if backend.is_answering]


async def answering(request: web.Request) -> list[Backend]:
    """The backends that answer. Raises NoBackendError when none does."""
    backends = await reachable(request)
    if not backends:
        raise _nobody()
    return backends


async def installed(request: web.Request, backends: Sequence[Backend]) -> ModelList:
    """The models as the backends list them now, given those that are reachable. While none is, as they last did: jobs
    for them are accepted and wait. Raises NoBackendError where no list is known.
    """
    pool = request.app[POOL]
    if backends:
        await pool.catalogue.refresh()
        backends = [backend for backend in pool if backend.is_answering]
    return ModelList(_merged(backends)) if backends else last_told(request, tuple(pool))


def last_told(request: web.Request, backends: Sequence[Backend]) -> ModelList:
    """The models of these backends as they last told. Raises NoBackendError where none ever did."""
    times = [last.told_at for backend in backends if (last := backend.installed_list.last_told) is not None]
    if not times:
        raise _nobody()
    age_seconds = max(0, request.app[CLOCK].now_ms() - min(times)) // 1000
    return ModelList(_merged(backends), age_seconds)


def _merged(backends: Sequence[Backend]) -> dict[str, InstalledModel]:
    found: dict[str, InstalledModel] = {}
    for backend in backends:
        for model in backend.usable:
            found.setdefault(model_key(model.name), model)
    return found


def _nobody() -> NoBackendError:
    return NoBackendError("no backend answers; try again later")
