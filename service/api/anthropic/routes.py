"""Anthropic's API, as Ollama has it."""

from __future__ import annotations

from service.api.anthropic.translation import DOOR, describe, error_frame, heartbeat
from service.api.dropin.dialect import Dialect
from service.api.dropin.queued import queued_routes
from service.api.http.operation import EVENT_STREAM
from service.api.http.unrouted import with_slashes

DIALECT = Dialect(DOOR, describe, "EOF", EVENT_STREAM, error_frame, heartbeat)

_ROUTES = queued_routes(DIALECT)
ROUTES = (*_ROUTES, *with_slashes(_ROUTES))
