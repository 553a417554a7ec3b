"""Is the service well, and what is the matter when it is not?"""

from __future__ import annotations

from typing import Annotated, NotRequired

from aiohttp import web
from typing_extensions import TypedDict

from service.api.access.caller import CALLER
from service.api.context import CONFIG, JOBS, POOL
from service.api.http.json_replies import json_reply
from service.api.http.operation import JSON, Access, Operation, Operations, ReplyDoc
from service.api.live.websocket.stats import count_jobs
from service.backend.pool import Backend
from service.clock import zulu
from service.fields import Moment, one_of
from service.job import Status
from service.jobs import Jobs
from service.own_version import own_version

_UNAVAILABLE, _OK, _WAITING = "unavailable", "ok", "waiting for a backend"
_REASONS = {_UNAVAILABLE: "cannot_store", _WAITING: "no_backend", _OK: "ready"}
_SERVICE = "corral"


class DatabaseHealth(TypedDict):
    """Whether what is accepted can be stored."""

    status: Annotated[str, one_of(["ok", "failed"])]
    error: NotRequired[str]
    room: NotRequired[RoomHealth]
    """Where ``database.max_bytes`` bounds it."""


class RoomHealth(TypedDict):
    """How much is stored, and what went for want of room."""

    used_bytes: int | None
    """As last looked at; null before that."""
    max_bytes: int
    jobs_emptied: int
    """Jobs whose contents were deleted since the start."""
    last_emptied_at: NotRequired[Moment]


class BackendHealth(TypedDict):
    """A backend, as its last probe found it."""

    name: str
    status: Annotated[str, one_of(["ok", "absent"])]
    version: NotRequired[str]
    error: NotRequired[str]
    seats: int
    running: int


class QueueHealth(TypedDict):
    """How many jobs there are."""

    queued: int
    processing: int


class HealthReply(TypedDict):
    """How the service is. Where keys are required, a caller without one is told the first three."""

    service: Annotated[str, one_of([_SERVICE])]
    """By this a client knows that it talks to Corral, and not to an Ollama."""
    status: Annotated[str, one_of(_REASONS)]
    reason: Annotated[str, one_of(_REASONS.values())]
    """The same as a code."""
    version: NotRequired[str]
    """Corral's own."""
    database: NotRequired[DatabaseHealth]
    backends: NotRequired[list[BackendHealth]]
    queue: NotRequired[QueueHealth]


async def health(request: web.Request) -> web.StreamResponse:
    """503 while nothing can be stored. A backend that is away only makes its jobs wait, so the service is well."""
    jobs = request.app[JOBS]
    trouble = jobs.ledger.store_trouble
    is_served = any(backend.is_answering for backend in request.app[POOL])
    status = _UNAVAILABLE if trouble else _OK if is_served else _WAITING
    fields: HealthReply = {"service": _SERVICE, "status": status, "reason": _REASONS[status]}
    if request[CALLER].is_known or request.app[CONFIG].metrics.public:
        counts = count_jobs(jobs)
        fields["version"] = own_version()
        fields["database"] = _database_fields(jobs)
        fields["backends"] = [_backend_fields(backend) for backend in request.app[POOL]]
        fields["queue"] = {"queued": counts[Status.QUEUED], "processing": counts[Status.PROCESSING]}
    return json_reply(request, fields, status=503 if trouble else 200)


def _database_fields(jobs: Jobs) -> DatabaseHealth:
    trouble, retention = jobs.ledger.store_trouble, jobs.retention
    fields: DatabaseHealth = {"status": "failed", "error": trouble} if trouble else {"status": "ok"}
    if retention.max_bytes:
        room: RoomHealth = {
            "used_bytes": retention.used_bytes,
            "max_bytes": retention.max_bytes,
            "jobs_emptied": retention.jobs_emptied,
        }
        if retention.last_emptied_at is not None:
            room["last_emptied_at"] = zulu(retention.last_emptied_at)
        fields["room"] = room
    return fields


def _backend_fields(backend: Backend) -> BackendHealth:
    fields: BackendHealth = {
        "name": backend.name,
        "status": "ok" if backend.is_answering else "absent",
        "seats": backend.config.concurrency,
        "running": backend.config.concurrency - backend.free_seats,
    }
    if backend.version is not None:
        fields["version"] = backend.version
    if not backend.is_answering and backend.trouble:
        fields["error"] = backend.trouble
    return fields


ROUTES = (web.get("/health", health),)
OPERATIONS: Operations = {
    ("GET", "/health"): Operation(
        summary="Ask how the service is",
        description="It is well without a backend, too: jobs then wait. Where keys are required, who has none is "
        "told ``service``, ``status`` and ``reason`` only (all by ``metrics.public``).",
        tag="operation",
        access=Access.OPEN,
        replies={
            200: ReplyDoc("It can take jobs.", {JSON: HealthReply}),
            503: ReplyDoc("Nothing can be stored.", {JSON: HealthReply}),
        },
    ),
}
