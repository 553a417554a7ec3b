"""``Idempotency-Key``: a request that is repeated with the key of an earlier one is answered with that one's job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256

from aiohttp import web
from multidict import istr

from service.api.accounting import note_job, note_model
from service.api.auth import admit
from service.api.caller import CALLER
from service.api.context import JOBS, POOL
from service.errors import InvalidRequestError
from service.job import NewJob
from service.jobs import View
from service.jobs.repeats import Make, Repeated
from service.relay import Relay
from service.store.idempotency import RequestKey

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
    InvalidRequestError, NotFoundError, IdempotencyMismatchError, and what :func:`service.api.auth.admit` and
    submissions raise.
    """
    jobs = request.app[JOBS]
    if HEADER not in request.headers:
        is_certain = request.app[POOL].may_have(new.model)
        entered = jobs.enter(admit(request, new) if is_certain else await _admitted(request, new))
        # A turn of the loop, so that the disk is at work while the reply is made.
        await asyncio.sleep(0)
        # Where the database gives the numbers there is none to tell yet.
        answer = reply(entered.view, _NEW) if entered.view.job.seq else None
        await entered.written
        note_job(request, entered.view.job)
        return reply(entered.view, _NEW) if answer is None else answer
    repeated = await jobs.submit_once(request_key(request, body), partial(_admitted, request, new))
    _note(request, repeated)
    return reply(repeated.view, REPLAYED if repeated.is_earlier else _NEW)


async def call_once(request: web.Request, key: RequestKey, make: Make) -> Repeated:
    """The same for a caller that waits for the backend's reply, which is kept."""
    repeated = await request.app[JOBS].submit_once(key, make, Relay(is_kept=True))
    _note(request, repeated)
    return repeated


async def _admitted(request: web.Request, new: NewJob) -> NewJob:
    await request.app[POOL].require_model(new.model)
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
