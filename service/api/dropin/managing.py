"""An admin's calls that are relayed to one backend as they are, past the queue."""

from __future__ import annotations

from aiohttp import web

from service.api.context import POOL
from service.api.dropin.passing import first_answering, pass_on
from service.api.http.receiving import PassedBody
from service.backend.http.deadlines import Deadlines
from service.errors import NoBackendError

_LIMITS = Deadlines(connect=5.0, first_byte=86_400.0, stall=3_600.0, attempt=86_400.0)
"""A pull takes as long as the network needs; without streaming, nothing comes before it is done."""


async def relay_for_admin(request: web.Request, target: str) -> web.StreamResponse:
    """Relay an admin's request to the backend that it names in ``X-Backend``, else to the first that answers. Its body
    and Ollama's progress pass as they come. ``target`` is the path, and the query where there is one.

    Raises NotFoundError for a backend that is not there, NoBackendError and SlowBodyError.
    """
    name = request.headers.get("X-Backend")
    backend = request.app[POOL].find(name) if name is not None else await first_answering(request)
    body = PassedBody(request) if request.can_read_body else None
    try:
        return await pass_on(request, target, body, backend, _LIMITS, most_bytes=None)
    except NoBackendError:
        if body is not None and body.stalled is not None:
            raise body.stalled from None
        raise
    finally:
        backend.wants_probe.set()
