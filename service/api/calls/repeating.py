"""A call that says with an idempotency key that it may be repeated: its callers share one reply, also those who come
later.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from service.api.accounting import note_job
from service.api.calls.answering import Answer, place_headers
from service.api.calls.callers import is_gone
from service.api.calls.dialect import Dialect
from service.api.context import AUDIENCE, CONFIG, HUB, JOBS
from service.api.idempotency import REPLAYED, call_once
from service.api.long_poll import LongPoll
from service.errors import StoppingError
from service.job import NewJob
from service.jobs import View
from service.relay import Relay
from service.store.idempotency import RequestKey

_LOOK_SECONDS = 5.0


async def answer_once(
    request: web.Request, dialect: Dialect, key: RequestKey, make: Callable[[], NewJob]
) -> web.StreamResponse:
    """Answer with the reply of the first call with this key, whether it is finished, under way or this one."""
    view, relay, is_earlier = await call_once(request, key, make)
    note_job(request, view.job)
    headers = {**place_headers(view), **(REPLAYED if is_earlier else {})}
    if relay is None:
        relay = await _reply_from_elsewhere(request, view)
    if relay is None:
        return web.Response(status=499, headers=headers)
    return await Answer(request, dialect, view.job, relay, headers).give()


async def _reply_from_elsewhere(request: web.Request, view: View) -> Relay | None:
    """The reply of a job that another process works on, once it is finished; None when the caller leaves before."""
    app = request.app
    poll = LongPoll(app[JOBS], app[HUB], app[AUDIENCE], app[CONFIG].database.poll_interval_seconds)
    while not view.job.is_final:
        if is_gone(request):
            return None
        if app[AUDIENCE].is_dismissed:
            raise StoppingError("the service is stopping; try again in a moment")
        view = await poll.until_changed(view.job.id, view.job.status, _LOOK_SECONDS)
    return await app[JOBS].kept_reply(view.job)
