"""``Idempotency-Key``: a request that is repeated with the key of an earlier one is answered with that one's job."""

from __future__ import annotations

from hashlib import sha256

from aiohttp import web
from multidict import istr

from service.api.accounting import note_job, note_model
from service.api.caller import CALLER
from service.api.context import JOBS
from service.errors import InvalidRequestError
from service.jobs import View
from service.jobs.repeats import Make, Repeated
from service.relay import Relay
from service.store.idempotency import RequestKey

HEADER = istr("Idempotency-Key")
REPLAYED = {"Idempotent-Replayed": "true"}
"""Said of a reply that belongs to an earlier request."""
_LONGEST = 255


async def submit_once(request: web.Request, make: Make) -> tuple[View, dict[str, str]]:
    """The job of a request that nobody waits for, new or that of an earlier request, and what the reply is to say.

    ``make`` is called only for a new job. Raises InvalidRequestError, IdempotencyMismatchError, and what submissions
    raise.
    """
    jobs = request.app[JOBS]
    key = await request_key(request) if HEADER in request.headers else None
    if key is None:
        view = await jobs.submit(await make())
        note_job(request, view.job)
        return view, {}
    repeated = await jobs.submit_once(key, make)
    _note(request, repeated)
    return repeated.view, REPLAYED if repeated.is_earlier else {}


async def call_once(request: web.Request, key: RequestKey, make: Make) -> Repeated:
    """The same for a caller that waits for the backend's reply, which is kept."""
    repeated = await request.app[JOBS].submit_once(key, make, Relay(is_kept=True))
    _note(request, repeated)
    return repeated


def _note(request: web.Request, repeated: Repeated) -> None:
    """A job has one row in the log, that of the request that made it; its tokens were used once."""
    if repeated.is_earlier:
        note_model(request, repeated.view.job.model)
    else:
        note_job(request, repeated.view.job)


async def request_key(request: web.Request) -> RequestKey | None:
    """What tells this request when it is repeated; None without the header. Raises InvalidRequestError."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not key or len(key) > _LONGEST or not (key.isascii() and key.isprintable()):
        raise InvalidRequestError(f"{HEADER}: must be 1 to {_LONGEST} printable ASCII characters", HEADER)
    fingerprint = sha256(f"{request.method} {request.path}\n".encode())
    fingerprint.update(await request.read())
    return RequestKey(request[CALLER].owner, key, fingerprint.hexdigest())
