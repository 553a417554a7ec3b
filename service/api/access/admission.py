"""How a request becomes a job: whether its model is there, whether its caller may make the job, and whether an earlier
request with the same ``Idempotency-Key`` has made it already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from hashlib import sha256

from aiohttp import web
from multidict import istr

from service.api.access.auth import AUTH
from service.api.access.caller import CALLER
from service.api.access.request_log import note_count, note_job, note_model
from service.api.context import JOBS, POOL
from service.errors import ForbiddenError, InvalidRequestError
from service.job import NewJob, Priority
from service.jobs import View
from service.jobs.repeats import Make, Repeated
from service.live.relay import Relay
from service.store.idempotency import RequestKey


def authorise(request: web.Request, model: str, priority: int) -> int:
    """The priority with which the caller may make a job for this model now, when it asks for this one; it counts as one
    request of its key, if it makes one.

    Raises ForbiddenError for a model or priority that the key may not use, and LimitReachedError.
    """
    note_model(request, model)
    key = request[CALLER].key
    if key is None:
        return priority
    if not key.may_use(model):
        raise ForbiddenError(f"this API key may not use the model {model!r}; it may use {', '.join(key.models)}")
    if key.max_priority is not None and priority > key.max_priority:
        if priority > Priority.NORMAL:
            highest = Priority(key.max_priority).word
            raise ForbiddenError(f"this API key may not ask for priority {Priority(priority).word}; at most {highest}")
        # Normal is what a request has that asks for nothing.
        priority = key.max_priority
    note_count(request, key, request.app[AUTH].rate_limits)
    return priority


async def admit(
    request: web.Request, model: str, find: Callable[[str], Awaitable[object]], make: Callable[[], NewJob]
) -> NewJob:
    """The job that ``make`` makes for this request, with the priority that the caller may have.

    Every new job comes through here, and in this order: ``find`` raises NotFoundError for a model that is not there,
    ``make`` raises InvalidRequestError, and :func:`authorise` says what the caller may do, and counts the request.
    """
    await find(model)
    new = make()
    priority = authorise(request, model, new.priority)
    return new if priority == new.priority else new._replace(priority=priority)


HEADER = istr("Idempotency-Key")
REPLAYED = {"Idempotent-Replayed": "true"}
"""Said of a reply that belongs to an earlier request."""
_NEW: Mapping[str, str] = {}
_LONGEST = 255


async def submit(
    request: web.Request, body: bytes, new: NewJob, reply: Callable[[View, Mapping[str, str]], web.StreamResponse]
) -> web.StreamResponse:
    """The ``reply`` to a request whose job nobody waits for, new or that of an earlier request; made of the job and of
    headers to add.

    Raises InvalidRequestError, IdempotencyMismatchError, and what :func:`admit` and submissions raise.
    """
    admitted = partial(admit, request, new.model, request.app[POOL].require_model, lambda: new)
    if HEADER not in request.headers:
        entered = request.app[JOBS].enter(await admitted())
        # A turn of the loop, so that the disk is at work while the reply is made.
        await asyncio.sleep(0)
        # Where the database gives the numbers there is none to tell yet.
        answer = reply(entered.view, _NEW) if entered.view.job.seq else None
        await entered.written
        note_job(request, entered.view.job)
        return reply(entered.view, _NEW) if answer is None else answer
    repeated = await _once(request, request_key(request, body), admitted)
    return reply(repeated.view, REPLAYED if repeated.is_earlier else _NEW)


async def call(request: web.Request, key: RequestKey, admitted: Make) -> Repeated:
    """The job of a request that has a key and whose caller waits for the backend's reply, which is kept."""
    return await _once(request, key, admitted, Relay(is_kept=True))


async def _once(request: web.Request, key: RequestKey, admitted: Make, relay: Relay | None = None) -> Repeated:
    """The job of the first request with this key; only a new one is asked to be ``admitted``."""
    repeated = await request.app[JOBS].submit_once(key, admitted, relay)
    # A job has one row in the log, that of the request that made it; its tokens were used once.
    if repeated.is_earlier:
        note_model(request, repeated.view.job.model)
    else:
        note_job(request, repeated.view.job)
    return repeated


def request_key(request: web.Request, body: bytes) -> RequestKey:
    """What tells this request, which has the header, when it is repeated. Raises InvalidRequestError."""
    key = request.headers[HEADER]
    if not key or len(key) > _LONGEST or not (key.isascii() and key.isprintable()):
        raise InvalidRequestError(f"{HEADER}: must be 1 to {_LONGEST} printable ASCII characters", HEADER)
    fingerprint = sha256(f"{request.method} {request.path}\n".encode())
    fingerprint.update(body)
    return RequestKey(request[CALLER].owner, key, fingerprint.hexdigest())
