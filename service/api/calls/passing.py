"""Calls that are relayed at once, past the queue: what Ollama itself is to refuse, and questions about models.

Through a small bound of their own, so that they neither wait for inference nor flood a backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from aiohttp import web

from service.api.calls.answering import passed_on
from service.api.context import POOL
from service.backend.call import Reply
from service.backend.pool import Backend
from service.backend.watch import Limits
from service.errors import BackendError, NoBackendError
from service.job import model_key

_AT_ONCE = 32
_LIMITS = Limits(connect=5.0, first_byte=60.0, stall=60.0, attempt=120.0)

PASSING = web.AppKey("passing", asyncio.Semaphore)


def passing_bound() -> asyncio.Semaphore:
    """How many of these calls run at once."""
    return asyncio.Semaphore(_AT_ONCE)


async def pass_on(
    request: web.Request,
    endpoint: str,
    body: bytes | AsyncIterable[bytes] | None,
    backend: Backend | None = None,
    limits: Limits = _LIMITS,
) -> web.StreamResponse:
    """Relay a call as it is to ``backend``, else to the first that answers. Raises NoBackendError."""
    target = backend or first_answering(request)
    async with request.app[PASSING]:
        try:
            call = target.client.call(endpoint, body, limits, method=request.method, headers=request.headers)
            async with call as reply:
                return await _relayed(request, reply)
        except BackendError as error:
            if request.writer.output_size:
                raise
            raise NoBackendError(f"the backend {target.name} gave no answer: {error}") from error


async def pass_unload(request: web.Request, endpoint: str, body: bytes, model: str) -> web.StreamResponse:
    """Relay an unload to every backend that has the model: it waits for running jobs there, and loads nothing."""
    key = model_key(model)
    backends = [one for one in request.app[POOL] if one.is_answering]
    holders = [one for one in backends if key in one.placement.loaded] or [
        one for one in backends if one.has_model(key)
    ]
    first, *others = holders or [first_answering(request)]
    for other in others:
        async with other.client.call(endpoint, body, _LIMITS) as reply:
            await reply.read()
    response = await pass_on(request, endpoint, body, first)
    for holder in holders:
        holder.wants_probe.set()
    return response


def first_answering(request: web.Request, model: str | None = None) -> Backend:
    """The first backend that answers, one that has ``model`` before others. Raises NoBackendError."""
    answering = [backend for backend in request.app[POOL] if backend.is_answering]
    key = model_key(model) if model else ""
    for backend in answering:
        if backend.has_model(key):
            return backend
    if not answering:
        raise NoBackendError("no backend answers; try again later")
    return answering[0]


async def _relayed(request: web.Request, reply: Reply) -> web.StreamResponse:
    if "Content-Length" in reply.headers or request.method == "HEAD":
        body = b"" if request.method == "HEAD" else await reply.read(64 << 20)
        response = web.Response(status=reply.status, headers=passed_on(reply.headers), body=body)
        if request.method == "HEAD" and "Content-Length" in reply.headers:
            response.content_length = int(reply.headers["Content-Length"])
        return response
    stream = web.StreamResponse(status=reply.status, headers=passed_on(reply.headers))
    stream.enable_chunked_encoding()
    await stream.prepare(request)
    async for data in reply.chunks():
        await stream.write(data)
    await stream.write_eof()
    return stream
