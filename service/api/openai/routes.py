"""OpenAI's API, as Ollama has it."""

from __future__ import annotations

from aiohttp import web

from service.api.dropin.dialect import Dialect
from service.api.dropin.queued import queued_routes
from service.api.http.operation import EVENT_STREAM
from service.api.http.unrouted import with_slashes
from service.api.openai.lists import model, models
from service.api.openai.translation import DOOR, describe, error_frame, heartbeat

DIALECT = Dialect(DOOR, describe, "EOF", EVENT_STREAM, error_frame, heartbeat)

_ROUTES = (
    *queued_routes(DIALECT),
    web.get("/v1/models", models, allow_head=False),
    web.get("/v1/models/{name:.+}", model, allow_head=False),
)
# The paths with one slash more come first: a model's name may hold slashes, but does not end with one.
ROUTES = (*with_slashes(_ROUTES), *_ROUTES)
