"""Calls that are relayed at once, past the queue: what Ollama itself is to refuse, and questions about models.

They have small bounds of their own, so that they neither wait for inference nor flood a backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from aiohttp import web

from service.api.context import POOL
from service.api.dropin.callers import CALLERS, WaitingCaller, hang_up
from service.api.dropin.headers import passed_on
from service.api.dropin.installed import answering
from service.backend.http.call import Reply
from service.backend.http.deadlines import Deadlines
from service.backend.pool import Backend
from service.cancel_scope import CancelScope
from service.errors import BackendError, NoBackendError
from service.job import model_key, model_of_runner

_AT_ONCE = 32
_LIMITS = Deadlines(connect=5.0, first_byte=60.0, stall=60.0, attempt=120.0)
QUICK = Deadlines(connect=4.0, first_byte=4.0, stall=4.0, attempt=8.0)
"""For lists: their callers give up after ten seconds, and may then be given a list that is a little old."""
_MOST_BYTES = 64 << 20

PASSING = web.AppKey("passing", asyncio.Semaphore)


def passing_bound() -> asyncio.Semaphore:
    """The bound on refusals that are fetched at once."""
    return asyncio.Semaphore(_AT_ONCE)


async def pass_refusal(
    request: web.Request, endpoint: str, body: bytes, backend: Backend | None = None
) -> web.StreamResponse:
    """Relay what cannot be queued to ``backend``, else to the first that answers. Raises NoBackendError."""
    async with request.app[PASSING]:
        return await pass_on(request, endpoint, body, backend or await first_answering(request))


async def pass_on(
    request: web.Request,
    endpoint: str,
    body: bytes | AsyncIterable[bytes] | None,
    backend: Backend,
    limits: Deadlines = _LIMITS,
) -> web.StreamResponse:
    """Relay a call as it is. Raises NoBackendError when the backend gives no answer."""
    # When the caller leaves, the call ends, and nobody is there to read an answer.
    with CancelScope() as scope, request.app[CALLERS].waiting(request, scope) as caller:
        call = backend.client.call(endpoint, body, limits, method=request.method, headers=request.headers)
        try:
            async with call as reply:
                return await _relayed(request, reply, caller)
        except BackendError as error:
            if request.writer.output_size:
                # A part of the reply is sent, which nobody must take for the whole.
                hang_up(request)
                return web.Response(status=502)
            raise NoBackendError(f"the backend {backend.name} gave no answer: {error}") from error
        except ConnectionError:
            return web.Response(status=499)
    return web.Response(status=499)


async def pass_unload(request: web.Request, endpoint: str, body: bytes, model: str) -> web.StreamResponse:
    """Relay an unload to every backend that has the model loaded or is loading it; Ollama unloads it after its running
    jobs. Where no backend has it loaded, one is asked all the same, for the reply.
    """
    key = model_key(model)
    holders = [one for one in request.app[POOL] if one.is_answering and _holds(one, key)]
    first, *others = holders or [await first_answering(request, model)]
    async with request.app[PASSING]:
        await asyncio.gather(*(_told(other, endpoint, body) for other in others))
        response = await pass_on(request, endpoint, body, first)
    for holder in holders:
        holder.wants_probe.set()
    return response


async def first_answering(request: web.Request, model: str | None = None) -> Backend:
    """The first backend that answers, one that has ``model`` before others. Raises NoBackendError."""
    backends = await answering(request)
    key = model_key(model) if model else ""
    return next((backend for backend in backends if backend.has_model(key)), backends[0])


def _holds(backend: Backend, key: str) -> bool:
    own = backend.placement.own
    at_work = any(model_of_runner(own(runner)) == own(key) for runner in backend.placement.in_flight)
    return (
        at_work
        or own(key) in backend.placement.loaded
        or any(own(model_key(one.name)) == own(key) for one in backend.loaded)
    )


async def _told(backend: Backend, endpoint: str, body: bytes) -> None:
    """Tell one backend more. Its failure does not concern the caller: the next probe finds what it has loaded."""
    try:
        async with backend.client.call(endpoint, body, _LIMITS) as reply:
            await reply.read()
    except BackendError:
        return


async def _relayed(request: web.Request, reply: Reply, caller: WaitingCaller) -> web.StreamResponse:
    length = reply.headers.get("Content-Length")
    if length is None and request.method != "HEAD":
        return await _streamed(request, reply, caller)
    response = web.Response(status=reply.status, headers=passed_on(reply.headers))
    if request.method != "HEAD":
        response.body = await reply.read(_MOST_BYTES)
    elif length is not None:
        response.headers["Content-Length"] = length
    if "Content-Type" not in reply.headers:
        # aiohttp adds a type to an empty body; Ollama gives none.
        response.headers.popall("Content-Type", None)
    return response


async def _streamed(request: web.Request, reply: Reply, caller: WaitingCaller) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=passed_on(reply.headers))
    await response.prepare(request)
    async for data in reply.chunks():
        await caller.write(response, data)
    await caller.end(response, b"")
    return response
