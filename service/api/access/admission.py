"""``Idempotency-Key``: a request that is repeated with the key of an earlier one is answered with that one's job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
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


def admit(request: web.Request, new: NewJob) -> NewJob:
    """The job, which is this caller's own, when it may make it; see :func:`authorise` for what it raises."""
    priority = authorise(request, new.model, new.priority)
    return new if priority == new.priority else new._replace(priority=priority)


HEADER = istr("Idempotency-Key")
REPLAYED = {"Idempotent-Replayed": "true"}
"""Said of a reply that belongs to an earlier request."""
_NEW: Mapping[str, str] = {}
_LONGEST = 255


async def submit_once(
    request: web.Request, body: bytes, new: NewJob, reply: Callable[[View, Mapping[str, str]], web.StreamResponse]
) -> web.StreamResponse:
    """The ``reply`` to a request whose job nobody waits for, new or that of an earlier request; made of the job and of
    headers to add.

    Whether the caller may make it, and whether its model is there, is asked only of a new job. Raises
    InvalidRequestError, NotFoundError, IdempotencyMismatchError, and what :func:`service.api.access.auth.admit` and
    submissions raise.
    """
    jobs = request.app[JOBS]
    if HEADER not in request.headers:
        is_certain = request.app[POOL].catalogue.may_have(new.model)
        entered = jobs.submission.enter(admit(request, new) if is_certain else await _admitted(request, new))
        # A turn of the loop, so that the disk is at work while the reply is made.
        await asyncio.sleep(0)
        # Where the database gives the numbers there is none to tell yet.
        answer = reply(entered.view, _NEW) if entered.view.job.seq else None
        await entered.written
        note_job(request, entered.view.job)
        return reply(entered.view, _NEW) if answer is None else answer
    repeated = await jobs.repeats.submit(request_key(request, body), partial(_admitted, request, new))
    _note(request, repeated)
    return reply(repeated.view, REPLAYED if repeated.is_earlier else _NEW)


async def call_once(request: web.Request, key: RequestKey, make: Make) -> Repeated:
    """The same for a caller that waits for the backend's reply, which is kept."""
    repeated = await request.app[JOBS].repeats.submit(key, make, Relay(is_kept=True))
    _note(request, repeated)
    return repeated


async def _admitted(request: web.Request, new: NewJob) -> NewJob:
    await request.app[POOL].catalogue.require(new.model)
    return admit(request, new)


def _note(request: web.Request, repeated: Repeated) -> None:
    """A job has one row in the log, that of the request that made it; its tokens were used once."""
    if repeated.is_earlier:
        note_model(request, repeated.view.job.model)
    else:
        note_job(request, repeated.view.job)


def request_key(request: web.Request, body: bytes) -> RequestKey:
    """What tells this request, which has the header, when it is repeated. Raises InvalidRequestError."""
    key = request.headers[HEADER]
    if not key or len(key) > _LONGEST or not (key.isascii() and key.isprintable()):
        raise InvalidRequestError(f"{HEADER}: must be 1 to {_LONGEST} printable ASCII characters", HEADER)
    fingerprint = sha256(f"{request.method} {request.path}\n".encode())
    fingerprint.update(body)
    return RequestKey(request[CALLER].owner, key, fingerprint.hexdigest())
