"""The backends, shown, drained and resumed; for admins."""

from __future__ import annotations

from aiohttp import web

from service.api.access.actor import actor_of
from service.api.access.auth import require_admin
from service.api.context import AUDIT, CLOCK, POOL
from service.api.http.failures import PROBLEM_JSON, Problem
from service.api.http.json_replies import json_reply
from service.api.http.operation import JSON, Access, Operation, Operations, Parameter, ReplyDoc, refusals
from service.api.live.backend_shape import BackendList, BackendReply, backend_fields
from service.audit import Action
from service.backend.pool import Backend


async def listed(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    found: BackendList = {"backends": [_fields(request, backend) for backend in request.app[POOL]]}
    return json_reply(request, found)


async def drain(request: web.Request) -> web.StreamResponse:
    """Nothing more is sent to it; what runs there ends by itself."""
    require_admin(request)
    backend = request.app[POOL].drain(request.match_info["name"])
    await request.app[AUDIT].record(Action.BACKEND_DRAINED, actor_of(request), backend.name)
    return json_reply(request, _fields(request, backend))


async def resume(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    backend = request.app[POOL].resume(request.match_info["name"])
    await request.app[AUDIT].record(Action.BACKEND_RESUMED, actor_of(request), backend.name)
    return json_reply(request, _fields(request, backend))


def _fields(request: web.Request, backend: Backend) -> BackendReply:
    limits = request.app[POOL].shares.limits(backend)
    return backend_fields(backend, limits, request.app[CLOCK].now_ms())


ROUTES = (
    web.get("/api/v1/backends", listed),
    web.post("/api/v1/backends/{name}/drain", drain),
    web.post("/api/v1/backends/{name}/resume", resume),
)

_NAME = Parameter("name", "path", "The backend's name.")
_REFUSED = refusals(Problem, PROBLEM_JSON, 401, 403)
_ONE = {
    200: ReplyDoc("The backend.", {JSON: BackendReply}),
    **_REFUSED,
    **refusals(Problem, PROBLEM_JSON, 404),
}
OPERATIONS: Operations = {
    ("GET", "/api/v1/backends"): Operation(
        summary="List the backends",
        tag="operation",
        access=Access.ADMIN,
        replies={200: ReplyDoc("All of them.", {JSON: BackendList}), **_REFUSED},
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
