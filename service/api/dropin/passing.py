"""Calls that are relayed at once, past the queue: what Ollama itself is to refuse, and questions about models.

They have small bounds of their own, so that they neither wait for inference nor flood a backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence
from contextlib import AbstractAsyncContextManager

from aiohttp import hdrs, web

from service.api.access.auth import AUTH
from service.api.access.caller import CALLER
from service.api.context import LONG_LIVED, POOL
from service.api.dropin.first_answer import first_answer
from service.api.dropin.headers import passed_on
from service.api.dropin.installed import answering
from service.api.http.callers import CALLERS, WaitingCaller, hang_up, is_gone
from service.api.http.operation import JSON
from service.api.http.raw_replies import stream_reply
from service.backend.http.call import Call, Reply
from service.backend.http.deadlines import Deadlines
from service.backend.pool import Backend
from service.cancel_scope import CancelScope
from service.errors import BackendError, NoBackendError
from service.job import model_key, model_of_runner

_AT_ONCE = 32
_LIMITS = Deadlines(connect=5.0, first_byte=60.0, stall=60.0, attempt=120.0)
MOST_BYTES = 64 << 20
"""Of a list, of what is told about a model, and of a refusal."""
_SMALL_BYTES = 256 << 10
"""A reply up to this size is passed on only once it is whole, so that one that breaks off can be told as an error."""

PASSING = web.AppKey("passing", asyncio.Semaphore)


def passing_bound() -> asyncio.Semaphore:
    """The bound on refusals that are fetched at once."""
    return asyncio.Semaphore(_AT_ONCE)


def quick(request: web.Request) -> Deadlines:
    """The limits of a list, whose callers may be given one that is a little old."""
    seconds = request.app[POOL].catalogue.patience_seconds
    return Deadlines(connect=seconds, first_byte=seconds, stall=seconds, attempt=2 * seconds)


async def pass_refusal(request: web.Request, endpoint: str, body: bytes) -> web.StreamResponse:
    """Relay what cannot be queued to the first backend that answers. Raises NoBackendError."""
    async with request.app[PASSING]:
        return await pass_to_first(request, endpoint, body)


async def pass_on(
    request: web.Request,
    endpoint: str,
    body: bytes | AsyncIterable[bytes] | None,
    backend: Backend,
    limits: Deadlines = _LIMITS,
    most_bytes: int | None = MOST_BYTES,
) -> web.StreamResponse:
    """Relay a call as it is; ``most_bytes`` of its reply, None for one that may go on for ever. Raises NoBackendError
    when the backend gives no answer, or one that is longer.
    """
    call = _call(request, backend, endpoint, body, limits)
    return await _passed(request, call, f"the backend {backend.name} gave no answer", most_bytes)


async def pass_to_first(
    request: web.Request,
    endpoint: str,
    body: bytes | None,
    model: str | None = None,
    limits: Deadlines = _LIMITS,
) -> web.StreamResponse:
    """Relay a call as it is to a backend that has ``model``, else to any. When one is silent or refuses, the next is
    asked, too; where none has the model, the first refusal is the answer of those whose version has the path. Raises
    NoBackendError when nobody replies.
    """
    backends = await answering(request)
    key = model_key(model) if model else ""
    holders = [backend for backend in backends if backend.has_model(key)]
    if len(holders or backends) == 1:
        return await pass_on(request, endpoint, body, (holders or backends)[0], limits)
    calls = [_call(request, backend, endpoint, body, limits) for backend in holders or backends]
    patience_seconds = request.app[POOL].catalogue.patience_seconds
    replying = first_answer(calls, patience_seconds, _has_path if not holders else _is_no_refusal)
    return await _passed(request, replying, "no backend gave an answer", MOST_BYTES)


def _is_no_refusal(reply: Reply) -> bool:
    return reply.status < 400


def _has_path(reply: Reply) -> bool:
    """Whether this is not what Ollama says of a path that its version does not have. Its refusals are JSON."""
    return reply.status != 404 or reply.content_type != "text/plain"


def _call(
    request: web.Request,
    backend: Backend,
    endpoint: str,
    body: bytes | AsyncIterable[bytes] | None,
    limits: Deadlines,
) -> Call:
    headers, key = request.headers.copy(), request[CALLER].key
    if key is not None and key.owner_header is not None:
        # It names the person behind the key.
        headers.popall(key.owner_header, None)
    if isinstance(body, bytes):
        # It was read as JSON, whatever its caller calls it. As the fields of a form it could say something else.
        headers[hdrs.CONTENT_TYPE] = JSON
    return backend.client.call(endpoint, body, limits, method=request.method, headers=headers)


async def _passed(
    request: web.Request, replying: AbstractAsyncContextManager[Reply], trouble: str, most_bytes: int | None
) -> web.StreamResponse:
    key, callers, long_lived = request[CALLER].key, request.app[CALLERS], request.app[LONG_LIVED]
    # The call ends when the caller leaves, and nobody is there to read an answer, and when its key is revoked.
    with CancelScope() as scope, callers.waiting(request, scope) as caller, long_lived.relayed(key, scope):
        request.app[AUTH].require_good(key)
        try:
            async with replying as reply:
                return await _relayed(request, reply, caller, most_bytes)
        except BackendError as error:
            if request.writer.output_size:
                # A part of the reply is sent, which nobody must take for the whole.
                hang_up(request)
                return web.Response(status=502)
            raise NoBackendError(f"{trouble}: {error}") from error
        except ConnectionError:
            return web.Response(status=499)
    if request.writer.output_size:
        hang_up(request)
    elif not is_gone(request):
        request.app[AUTH].require_good(key)
    return web.Response(status=499)


async def pass_unload(request: web.Request, endpoint: str, body: bytes, model: str) -> web.StreamResponse:
    """Relay an unload to every backend that has the model loaded or is loading it; Ollama unloads it after its running
    jobs. Where no backend has it loaded, one is asked all the same, for the reply.
    """
    key = model_key(model)
    holders = [one for one in request.app[POOL] if one.is_answering and _holds(one, key)]
    async with request.app[PASSING]:
        if len(holders) < 2:
            response = (
                await pass_on(request, endpoint, body, holders[0])
                if holders
                else await pass_to_first(request, endpoint, body, model)
            )
        else:
            response = await _passed_to_all(request, endpoint, body, holders)
    for holder in holders:
        holder.wants_probe.set()
    return response


async def _passed_to_all(
    request: web.Request, endpoint: str, body: bytes, backends: Sequence[Backend]
) -> web.StreamResponse:
    """Relay a call to all of them at once. The answer is that of the first in their order, once all have answered; one
    that is silent is waited for only a while, and longer where nobody has answered. Raises NoBackendError.
    """
    telling = [asyncio.create_task(_told(request, backend, endpoint, body)) for backend in backends]
    with CancelScope() as scope, request.app[CALLERS].waiting(request, scope):
        try:
            await asyncio.wait(telling, timeout=request.app[POOL].catalogue.patience_seconds)
            while True:
                for one in telling:
                    if one.done() and (response := one.result()) is not None:
                        return response
                left = [one for one in telling if not one.done()]
                if not left:
                    raise NoBackendError("no backend gave an answer")
                await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in telling:
                one.cancel()
    return web.Response(status=499)


async def first_answering(request: web.Request) -> Backend:
    """The first backend that answers. Raises NoBackendError."""
    return (await answering(request))[0]


def _holds(backend: Backend, key: str) -> bool:
    own = backend.placement.own
    at_work = any(model_of_runner(own(runner)) == own(key) for runner in backend.placement.in_flight)
    return at_work or own(key) in backend.placement.loaded or backend.has_loaded(own(key))


async def _told(request: web.Request, backend: Backend, endpoint: str, body: bytes) -> web.Response | None:
    """Tell one backend; its whole reply. None when it gives none: the next probe finds what it has loaded."""
    try:
        async with _call(request, backend, endpoint, body, _LIMITS) as reply:
            told = await reply.read(_SMALL_BYTES)
            return web.Response(status=reply.status, headers=passed_on(reply.headers), body=told)
    except BackendError:
        return None


async def _relayed(
    request: web.Request, reply: Reply, caller: WaitingCaller, most_bytes: int | None
) -> web.StreamResponse:
    length = reply.headers.get("Content-Length")
    size = None if length is None else int(length)
    is_head = request.method == "HEAD"
    if not is_head and (size is None or size > _SMALL_BYTES):
        return await _streamed(request, reply, caller, size, most_bytes)
    response = web.Response(status=reply.status, headers=passed_on(reply.headers))
    if not is_head:
        response.body = await reply.read(_SMALL_BYTES)
    elif length is not None:
        response.headers["Content-Length"] = length
    if "Content-Type" not in reply.headers:
        # aiohttp adds a type to an empty body; Ollama gives none.
        response.headers.popall("Content-Type", None)
    return response


async def _streamed(
    request: web.Request, reply: Reply, caller: WaitingCaller, size: int | None, most_bytes: int | None
) -> web.StreamResponse:
    """Pass a reply on in the pieces in which it comes: nothing of it gathers here."""
    _check_size(reply, size or 0, most_bytes)
    response = stream_reply(request, reply.status, passed_on(reply.headers), size)
    passed = 0
    async for data in reply.chunks():
        if not passed:
            # Not before: of a reply that breaks off at once a status can still tell.
            await response.prepare(request)
        passed += len(data)
        _check_size(reply, passed, most_bytes)
        await caller.write(response, data)
    await response.prepare(request)
    await caller.end(response, b"")
    return response


def _check_size(reply: Reply, size: int, most_bytes: int | None) -> None:
    if most_bytes is not None and size > most_bytes:
        raise reply.too_large(f"of more than {most_bytes} bytes")
