"""Anthropic's API, as Ollama has it."""

from __future__ import annotations

from aiohttp import web

from service.api.anthropic.errors import shape
from service.api.anthropic.translation import DOOR, describe, error_frame, heartbeat
from service.api.dropin.dialect import Dialect
from service.api.dropin.queued import queued
from service.api.http.unrouted import with_slashes

DIALECT = Dialect(DOOR, describe, shape, error_frame, heartbeat)

_ROUTES = (web.post("/v1/messages", queued(DIALECT, "/v1/messages")),)
ROUTES = (*_ROUTES, *with_slashes(_ROUTES))
