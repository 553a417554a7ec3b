"""Calls with an idempotency key: all callers that send the same key share one job and its reply, whenever they come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from aiohttp import web

from service.api.access.admission import REPLAYED, call
from service.api.context import BODY_ROOM, LONG_LIVED
from service.api.dropin.answering import STREAMS, Answer, place_headers
from service.api.dropin.caller_stream import CallerStream
from service.api.dropin.dialect import Dialect
from service.api.dropin.headers import media_type, passed_on
from service.api.http.callers import hang_up, is_gone
from service.api.http.failures import failure_of_ours
from service.api.live.delivery import note_sent
from service.api.live.long_poll import LongPoll
from service.errors import ServiceError, StoppingError
from service.job import NewJob
from service.jobs import View
from service.jobs.kept_replies import StoredReply
from service.jobs.ledger import STOPPING
from service.jobs.repeats import Make, Repeated
from service.store.idempotency import RequestKey

_LOOK_SECONDS = 5.0


class Admitted:
    """Makes the job of a call, from the call's body, which it holds until the job is on its way to the disk."""

    __slots__ = ("_make",)

    def __init__(self, make: Make) -> None:
        self._make: Make | None = make

    async def __call__(self) -> NewJob:
        assert self._make is not None
        return await self._make()

    def forget(self) -> None:
        """Let go of the body: the job is there."""
        self._make = None


async def answer_repeatable(
    request: web.Request, dialect: Dialect, key: RequestKey, admitted: Admitted
) -> web.StreamResponse:
    """Answer with the reply of the first call with this key: an earlier one, finished or under way, or this one."""
    first = await call(request, key, admitted)
    with CallerStream(request, dialect, first.view.job) as stream:
        try:
            return await _answered(request, stream, first, admitted, partial(call, request, key, admitted))
        except ServiceError as error:
            told = failure_of_ours(error)
            if told is None or not stream.is_begun:
                raise
            return await stream.broken(told.message, told.status)
        except ConnectionError:
            return web.Response(status=499, headers=place_headers(first.view))


async def _answered(
    request: web.Request,
    stream: CallerStream,
    found: Repeated,
    admitted: Admitted,
    find_again: Callable[[], Awaitable[Repeated]],
) -> web.StreamResponse:
    """The answer of the job that was found. Raises what ``find_again`` raises, StoppingError, and ConnectionError."""
    while True:
        view, relay, is_earlier = found
        headers = place_headers(view)
        if isinstance(relay, StoredReply):
            response = await _stored(request, stream, relay, headers | REPLAYED)
            note_sent(request, view.job, response)
            return response
        if relay is not None:
            admitted.forget()
            request.app[BODY_ROOM].release(request)
            headers |= REPLAYED if is_earlier else {}
            return await Answer(request, stream, view.job, relay, headers).give()
        # Another process works on the job. When it ends, either its reply is kept, or its caller has left and this call
        # becomes the first; for that it keeps its body, which counts as held so long.
        await _until_ended(request, view, stream, headers | REPLAYED)
        if is_gone(request):
            return web.Response(status=499, headers=headers)
        found = await find_again()


async def _stored(
    request: web.Request, stream: CallerStream, reply: StoredReply, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send a large reply from the store. Raises ConnectionError."""
    if not stream.is_begun:
        size = None if media_type(reply.head) in STREAMS else reply.size
        await stream.begin(reply.head.status, passed_on(reply.head.headers, headers), size)
    sent = 0
    try:
        async for data in reply.read():
            sent += len(data)
            await stream.write(data, reply.size - sent)
        return await stream.end(b"")
    except (ConnectionError, ServiceError):
        # Nobody must take a part for the whole.
        hang_up(request)
        raise ConnectionError("the reply broke off") from None


async def _until_ended(request: web.Request, view: View, stream: CallerStream, headers: Mapping[str, str]) -> None:
    """Wait until a job is final, or its caller is gone. Raises StoppingError, and ConnectionError."""
    app = request.app
    poll = LongPoll(request)
    while not view.job.is_final and not is_gone(request):
        if app[LONG_LIVED].is_dismissed:
            raise StoppingError(STOPPING)
        seconds = min(_LOOK_SECONDS, stream.due_in_seconds)
        view = await poll.until_changed(view.job.id, view.job.status, seconds)
        if stream.is_due:
            await stream.beat(headers)
