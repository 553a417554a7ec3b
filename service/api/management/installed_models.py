"""Which models there are, and where; programs and the page offer them to choose from."""

from __future__ import annotations

from aiohttp import web

from service.api.context import POOL, QUEUE
from service.api.http.json_replies import json_reply
from service.api.management.schema import ModelList, ModelReply
from service.backend.pool import Pool
from service.job import model_key


async def listed(request: web.Request) -> web.StreamResponse:
    """The models by name. A backend that does not answer is shown with the models that it last had, since jobs for them
    are accepted and wait.
    """
    pool = request.app[POOL]
    await pool.catalogue.refresh()
    models: ModelList = {"models": _fields(pool), "default": request.app[QUEUE].present.default_model}
    return json_reply(request, models)


def _fields(pool: Pool) -> list[ModelReply]:
    found: dict[str, ModelReply] = {}
    for backend, model in pool.catalogue.known():
        key = model_key(model.name)
        details, modified_at = model.entry.get("details"), model.entry.get("modified_at")
        fields = found.setdefault(
            key,
            {
                "name": model.name,
                "backends": [],
                "is_loaded": False,
                "is_available": False,
                "size": model.size,
                "modified_at": None if modified_at is None else str(modified_at),
                "details": details if isinstance(details, dict) else {},
            },
        )
        fields["backends"].append(backend.name)
        fields["is_available"] |= backend.is_available
        fields["is_loaded"] |= backend.is_answering and backend.placement.own(key) in backend.placement.loaded
    return sorted(found.values(), key=lambda fields: fields["name"].lower())


ROUTES = (web.get("/api/models", listed),)
