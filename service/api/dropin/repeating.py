"""Calls with an idempotency key: all callers that send the same key share one job and its reply, whenever they come."""

from __future__ import annotations

from aiohttp import web

from service.api.access.admission import REPLAYED, call
from service.api.context import CONFIG, HUB, JOBS, LONG_LIVED
from service.api.dropin.answering import Answer, place_headers
from service.api.dropin.callers import is_gone
from service.api.dropin.dialect import Dialect
from service.api.live.long_poll import LongPoll
from service.errors import StoppingError
from service.jobs import View
from service.jobs.ledger import STOPPING
from service.jobs.repeats import Make
from service.store.idempotency import RequestKey

_LOOK_SECONDS = 5.0


async def answer_repeatable(
    request: web.Request, dialect: Dialect, key: RequestKey, admitted: Make
) -> web.StreamResponse:
    """Answer with the reply of the first call with this key: an earlier one, finished or under way, or this one."""
    while True:
        view, relay, is_earlier = await call(request, key, admitted)
        if relay is not None:
            headers = {**place_headers(view), **(REPLAYED if is_earlier else {})}
            return await Answer(request, dialect, view.job, relay, headers).give()
        # Another process works on the job. When it ends, either its reply is kept, or its caller has left and this call
        # becomes the first.
        await _until_ended(request, view)
        if is_gone(request):
            return web.Response(status=499, headers=place_headers(view))


async def _until_ended(request: web.Request, view: View) -> None:
    """Wait until a job is final, or its caller is gone. Raises StoppingError."""
    app = request.app
    poll = LongPoll(app[JOBS], app[HUB], app[LONG_LIVED], app[CONFIG].database.poll_interval_seconds)
    while not view.job.is_final and not is_gone(request):
        if app[LONG_LIVED].is_dismissed:
            raise StoppingError(STOPPING)
        view = await poll.until_changed(view.job.id, view.job.status, _LOOK_SECONDS)
