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
from service.api.access.request_id import request_id_of
from service.api.access.request_log import note_count, note_job, note_model
from service.api.context import JOBS, POOL
from service.errors import ForbiddenError, InvalidRequestError
from service.job import NewJob, Priority
from service.jobs import View
from service.jobs.repeats import Make, Repeated
from service.jobs.retention import retention_ms
from service.live.relay import Relay
from service.store.idempotency import RequestKey


def authorise(request: web.Request, model: str, priority: int) -> int:
    """The priority that the caller may have when it asks for this one, for a job of this model. The request counts
    against its key's limit; :class:`RequestLogging` gives it back when no job comes of it.

    Raises ForbiddenError for a model or priority that the key may not use, LimitReachedError, and UnauthenticatedError
    when the key was revoked meanwhile.
    """
    note_model(request, model)
    require_model(request, model)
    key = request[CALLER].key
    # It may have been revoked while the body came, or while the backends were asked for the model.
    request.app[AUTH].require_good(key)
    if key is None:
        return priority
    if key.max_priority is not None and priority > key.max_priority:
        if priority > Priority.NORMAL:
            highest = Priority(key.max_priority).word
            raise ForbiddenError(f"this API key may not ask for priority {Priority(priority).word}; at most {highest}")
        # A request that asks for no priority has normal, so this one is lowered and not refused.
        priority = key.max_priority
    count(request)
    return priority


def require_model(request: web.Request, model: str) -> None:
    """Raise ForbiddenError for a model that the caller's key may not use."""
    key = request[CALLER].key
    if key is not None and not key.may_use(model):
        raise ForbiddenError(f"this API key may not use the model {model!r}; it may use {', '.join(key.models)}")


def count(request: web.Request) -> None:
    """Count the request against its key's limit; it is given back when no job comes of it. Raises LimitReachedError."""
    key = request[CALLER].key
    if key is not None:
        note_count(request, key, request.app[AUTH].rate_limits)


async def admit(
    request: web.Request, model: str, find: Callable[[str], Awaitable[object]], make: Callable[[], NewJob]
) -> NewJob:
    """The job that ``make`` makes for this request, with the priority that the caller may have.

    Every new job comes through here, and in this order: ``find`` raises NotFoundError for a model that is not there,
    ``make`` raises InvalidRequestError, and :func:`authorise` says what the caller may do, and counts the request.
    """
    await find(model)
    new = make()
    priority, request_id = authorise(request, model, new.priority), request_id_of(request)
    is_admins = request[CALLER].is_admin
    runner = request.app[POOL].catalogue.merged(new.runner)
    key = request[CALLER].key
    kept_ms = None if key is None else retention_ms(key.retention_days)
    if priority == new.priority and request_id is None and runner == new.runner and not is_admins and kept_ms is None:
        return new
    return new._replace(
        priority=priority, request_id=request_id, runner=runner, is_admins=is_admins, retention_ms=kept_ms
    )


HEADER = istr("Idempotency-Key")
REPLAYED = {"Idempotent-Replayed": "true"}
"""Said of a reply that belongs to an earlier request."""
_NEW: Mapping[str, str] = {}
_LONGEST = 255


async def submit(
    request: web.Request, body: bytes, new: NewJob, reply: Callable[[View, Mapping[str, str]], web.StreamResponse]
) -> web.StreamResponse:
    """Answer a request whose caller does not wait for the job. ``reply`` makes the answer from the job, which is new or
    an earlier request's, and from the headers that tell which.

    Raises InvalidRequestError, IdempotencyMismatchError, and what :func:`admit` and submissions raise.
    """
    admitted = partial(admit, request, new.model, request.app[POOL].catalogue.require, lambda: new)
    if HEADER not in request.headers:
        entered = request.app[JOBS].submission.enter(await admitted())
        # One turn of the loop: the database begins to write, and meanwhile the reply is made.
        await asyncio.sleep(0)
        # PostgreSQL gives the job its number only when it is stored; then the reply has to wait for it.
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
    repeated = await request.app[JOBS].repeats.submit(key, admitted, relay)
    # Only the request that made the job has it in the log: its tokens were used once.
    if repeated.is_earlier:
        note_model(request, repeated.view.job.model)
    else:
        note_job(request, repeated.view.job)
    return repeated


def request_key(request: web.Request, body: bytes) -> RequestKey:
    """What is stored of a request with the header, so that a repetition is known. Raises InvalidRequestError."""
    key = request.headers[HEADER]
    if not key or len(key) > _LONGEST or not (key.isascii() and key.isprintable()):
        raise InvalidRequestError(f"{HEADER}: must be 1 to {_LONGEST} printable ASCII characters", HEADER)
    # A slash at the end is no difference: it leads to the same route.
    fingerprint = sha256(f"{request.method} {request.path.removesuffix('/')}\n".encode())
    fingerprint.update(body)
    return RequestKey(request[CALLER].owner, key, fingerprint.hexdigest())
