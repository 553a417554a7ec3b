"""Is the service well, and what is the matter when it is not?"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from service.api.context import JOBS, POOL
from service.api.figures import count_jobs
from service.api.replies import json_reply
from service.backend.pool import Backend
from service.job import Status


async def health(request: web.Request) -> web.Response:
    """503 while nothing can be stored; a backend that is away holds up its jobs, but the service is well."""
    jobs = request.app[JOBS]
    trouble = jobs.store_trouble
    backends = [_backend_fields(backend) for backend in request.app[POOL]]
    counts = count_jobs(jobs)
    is_served = any(backend["status"] == "ok" for backend in backends)
    fields = {
        "status": "unavailable" if trouble else "ok" if is_served else "waiting for a backend",
        "database": {"status": "failed", "error": trouble} if trouble else {"status": "ok"},
        "backends": backends,
        "queue": {status: counts[status] for status in (Status.QUEUED, Status.PROCESSING)},
    }
    return json_reply(fields, status=503 if trouble else 200)


def _backend_fields(backend: Backend) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": backend.name, "status": "ok" if backend.is_answering else "absent"}
    if backend.version is not None:
        fields["version"] = backend.version
    if not backend.is_answering and backend.trouble:
        fields["error"] = backend.trouble
    return {**fields, "seats": backend.config.concurrency, "running": backend.config.concurrency - backend.free_seats}


ROUTES = (web.get("/health", health),)
