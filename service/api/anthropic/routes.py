"""Anthropic's API, as Ollama has it."""

from __future__ import annotations

from aiohttp import web

from service.api.anthropic.errors import shape
from service.api.anthropic.translation import DOOR, describe, error_frame, heartbeat
from service.api.calls.dialect import Dialect
from service.api.calls.queued import queued

DIALECT = Dialect(DOOR, describe, shape, error_frame, heartbeat)

ROUTES = (web.post("/v1/messages", queued(DIALECT, "/v1/messages")),)
