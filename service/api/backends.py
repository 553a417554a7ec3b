"""The backends as an operator sees them, and taking one out of service and back; for admins."""

from __future__ import annotations

from typing import Annotated, NotRequired

from aiohttp import web
from typing_extensions import TypedDict

from service.api.auth import require_admin
from service.api.context import CLOCK, POOL
from service.api.failures import PROBLEM_JSON, Problem
from service.api.operation import JSON, Access, Operation, Operations, Parameter, Reply, refusals
from service.api.replies import json_reply
from service.api.reply_fields import one_of
from service.backend.breaker import Breaker, State
from service.backend.pool import Backend


class BreakerReply(TypedDict):
    """The circuit breaker of a backend, or of a model there."""

    state: Annotated[str, one_of(State)]
    faults: int
    """In a row."""
    rest_seconds: float
    """Until it is tried again."""


class RatesReply(TypedDict):
    """What a backend did in the last minute."""

    jobs_per_minute: float
    tokens_per_second: float
    mean_seconds: float | None
    """What a job took; null when there was none."""


class BackendReply(TypedDict):
    """One Ollama server."""

    name: str
    url: str
    state: Annotated[str, one_of(["ok", "absent", "draining", "drained"])]
    seats: int
    """How many jobs it is given at a time."""
    running: int
    running_models: dict[str, int]
    """How many jobs run on which."""
    loaded_models: list[str]
    models: list[str]
    """What is installed there."""
    loads: int
    """How often it was made to load a model."""
    breaker: BreakerReply
    failing_models: dict[str, BreakerReply]
    """Models that have failed since they last did not; one whose breaker is open gets no jobs there."""
    rates: RatesReply
    version: NotRequired[str]
    error: NotRequired[str]


class BackendList(TypedDict):
    """All of them."""

    backends: list[BackendReply]


async def listed(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    now = request.app[CLOCK].now_ms()
    found: BackendList = {"backends": [backend_fields(backend, now) for backend in request.app[POOL]]}
    return json_reply(request, found)


async def drain(request: web.Request) -> web.StreamResponse:
    """Nothing more is sent to it; what runs there ends by itself."""
    require_admin(request)
    backend = request.app[POOL].drain(request.match_info["name"])
    return json_reply(request, backend_fields(backend, request.app[CLOCK].now_ms()))


async def resume(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    backend = request.app[POOL].resume(request.match_info["name"])
    return json_reply(request, backend_fields(backend, request.app[CLOCK].now_ms()))


def backend_fields(backend: Backend, now: int) -> BackendReply:
    """A backend now (milliseconds since the epoch); rates are those of the last minute, times in seconds."""
    work, mean_seconds = backend.work, backend.work.mean_seconds(now)
    fields: BackendReply = {
        "name": backend.name,
        "url": backend.client.url,
        "state": _state(backend),
        "seats": backend.config.concurrency,
        "running": backend.in_flight,
        "running_models": dict(backend.placement.in_flight),
        "loaded_models": [one.name for one in backend.loaded],
        "models": [one.name for one in backend.installed or ()],
        "loads": backend.placement.swaps,
        "breaker": _breaker_fields(backend.breakers.server),
        "failing_models": {model: _breaker_fields(one) for model, one in backend.breakers.failing.items()},
        "rates": {
            "jobs_per_minute": round(work.jobs_per_minute(now), 2),
            "tokens_per_second": round(work.tokens_per_second(now), 2),
            "mean_seconds": None if mean_seconds is None else round(mean_seconds, 3),
        },
    }
    if backend.version is not None:
        fields["version"] = backend.version
    if backend.trouble is not None:
        fields["error"] = backend.trouble
    return fields


def _breaker_fields(breaker: Breaker) -> BreakerReply:
    return {"state": breaker.state, "faults": breaker.faults, "rest_seconds": round(breaker.rest_seconds, 1)}


def _state(backend: Backend) -> str:
    if backend.is_drained:
        return "draining" if backend.in_flight else "drained"
    return "ok" if backend.is_answering else "absent"


ROUTES = (
    web.get("/api/v1/backends", listed),
    web.post("/api/v1/backends/{name}/drain", drain),
    web.post("/api/v1/backends/{name}/resume", resume),
)

_NAME = Parameter("name", "path", "The backend's name.")
_REFUSED = refusals(Problem, PROBLEM_JSON, 401, 403)
_ONE = {
    200: Reply("The backend.", {JSON: BackendReply}),
    **_REFUSED,
    **refusals(Problem, PROBLEM_JSON, 404),
}
OPERATIONS: Operations = {
    ("GET", "/api/v1/backends"): Operation(
        summary="List the backends",
        tag="operation",
        access=Access.ADMIN,
        replies={200: Reply("All of them.", {JSON: BackendList}), **_REFUSED},
    ),
    ("POST", "/api/v1/backends/{name}/drain"): Operation(
        summary="Take a backend out of service",
        description="What runs there ends by itself.",
        tag="operation",
        access=Access.ADMIN,
        parameters=(_NAME,),
        replies=_ONE,
    ),
    ("POST", "/api/v1/backends/{name}/resume"): Operation(
        summary="Take a backend into service again",
        tag="operation",
        access=Access.ADMIN,
        parameters=(_NAME,),
        replies=_ONE,
    ),
}
