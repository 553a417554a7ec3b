"""Ollama's reply on its way to the caller, byte for byte and as it comes. A reply that broke off never looks whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from service.api.access.request_log import note_job
from service.api.context import BODY_ROOM, JOBS
from service.api.dropin.boundaries import Boundaries
from service.api.dropin.caller_stream import CallerStream
from service.api.dropin.headers import media_type, passed_on
from service.api.http.callers import is_gone
from service.api.http.failures import Failure, failure_of_ours, shaped
from service.api.http.operation import EVENT_STREAM, NDJSON
from service.api.http.raw_replies import whole_reply
from service.api.live.delivery import note_sent
from service.backend.classification import message_of
from service.errors import CallEndedError, ServiceError, StoppingError
from service.job import Job
from service.jobs import Entered, View
from service.live.relay import READ_BYTES, Head, Relay

STREAMS = (NDJSON, EVENT_STREAM)
_NO_RETRY = {"x-should-retry": "false"}
"""Tells OpenAI's clients not to try again: the job was tried again already, and each try of theirs is another job."""


class CallerGoneError(Exception):
    """The caller has closed the connection."""


def place_headers(view: View) -> dict[str, str]:
    """What every reply says of its job; position 0 means that the job did not have to wait."""
    headers = {"X-Job-Id": view.job.id, "X-Queue-Position": str(view.position or 0)}
    if view.estimated_start_seconds is not None:
        headers["X-Estimated-Start-Seconds"] = f"{view.estimated_start_seconds:g}"
    return headers


class Answer:
    """One caller's reply. ``headers`` are added to Ollama's; ``entered`` is a job that is not on disk yet."""

    def __init__(
        self,
        request: web.Request,
        stream: CallerStream,
        job: Job,
        relay: Relay,
        headers: Mapping[str, str],
        entered: Entered | None = None,
    ) -> None:
        self._request = request
        self._to_caller = stream
        self._job = job
        self._relay = relay
        self._headers = headers
        self._entered = entered

    async def give(self) -> web.StreamResponse:
        """Answer the caller. When it leaves, its job is cancelled, unless it asked otherwise."""
        relay = self._relay
        self._to_caller.wakes(relay.poke)
        try:
            response = await self._relayed()
            if relay.failure is None:
                note_sent(self._request, self._job, response)
            return response
        except (CallerGoneError, ConnectionError):
            return web.Response(status=499, headers=self._headers)
        finally:
            relay.leave()
            if not relay.is_ended or isinstance(relay.failure, StoppingError):
                await self._abandon()

    async def _relayed(self) -> web.StreamResponse:
        relay = self._relay
        if self._entered is not None:
            # Nothing is sent before the job is on disk.
            await self._entered.written
            self._request.app[BODY_ROOM].release(self._request)
            note_job(self._request, self._job)
        while True:
            head = relay.head
            if head is not None and self._job.is_streamed and head.status < 400 and media_type(head) in STREAMS:
                return await self._stream(head)
            if relay.is_ended:
                break
            if not self._to_caller.is_due:
                await self._changed()
            elif not relay.open():
                await self._to_caller.beat(self._headers)
        if head is None or relay.failure is not None:
            return await self._refused()
        return await self._whole(head)

    async def _refused(self) -> web.StreamResponse:
        """Answer with an error of ours: there will be no reply of Ollama's."""
        failure = self._relay.failure
        told = failure_of_ours(failure) if failure is not None else None
        if told is None:
            told = Failure(503, "the backend gave no reply")
        if self._to_caller.is_begun:
            return await self._to_caller.broken(told.message, told.status)
        headers = {**told.headers, **self._headers}
        if isinstance(failure, CallEndedError):
            headers |= _NO_RETRY
        return shaped(self._request, told._replace(headers=headers))

    async def _whole(self, head: Head) -> web.StreamResponse:
        if self._to_caller.is_begun:
            return await self._whole_in_stream(head)
        ours = self._headers
        if head.status >= 429 and not self._relay.is_worth_retrying:
            ours = {**ours, **_NO_RETRY}
        if self._relay.size <= READ_BYTES:
            return whole_reply(self._request, head.status, passed_on(head.headers, ours), self._relay.read(0)[0])
        await self._to_caller.begin(head.status, passed_on(head.headers, ours), self._relay.size)
        return await self._to_caller.end(await self._all_but_last())

    async def _whole_in_stream(self, head: Head) -> web.StreamResponse:
        """Send a reply that came whole into a stream that a sign of life has begun."""
        if head.status >= 400:
            message = message_of(self._relay.read(0)[0], media_type(head)) or f"status {head.status}"
            return await self._to_caller.broken(message, head.status)
        last = await self._all_but_last()
        return await self._to_caller.end(last if last.endswith(b"\n") else last + b"\n")

    async def _all_but_last(self) -> bytes:
        """Send a reply that is all there, piece by piece, but for its last piece."""
        sent = 0
        data, position = self._relay.read(0)
        while self._relay.has_more(position):
            sent += len(data)
            await self._to_caller.write(data, self._relay.size - sent)
            data, position = self._relay.read(position)
        return data

    async def _stream(self, head: Head) -> web.StreamResponse:
        relay, to_caller = self._relay, self._to_caller
        relay.is_sent = True
        if not to_caller.is_begun:
            await to_caller.begin(head.status, passed_on(head.headers, self._headers))
        # Only whole lines and events are sent: half of one would be an error to the client that reads it.
        boundaries = Boundaries(is_event_stream=media_type(head) == EVENT_STREAM)
        position = taken = 0
        while True:
            data, position = relay.read(position)
            taken += len(data)
            has_more = relay.has_more(position)
            if relay.is_ended and not has_more:
                break
            if data and (data := boundaries.whole(data)):
                await to_caller.write(data, relay.size - taken)
            elif to_caller.is_due:
                await to_caller.beat(self._headers)
            elif not has_more:
                await self._changed()
        data = boundaries.whole(data)
        if relay.failure is not None:
            if data:
                await to_caller.write(data)
            told = failure_of_ours(relay.failure)
            message = told.message if told is not None else "the answer broke off"
            return await to_caller.broken(message, has_told_error=relay.has_told_error)
        return await to_caller.end(data + boundaries.rest())

    async def _changed(self) -> None:
        await self._relay.changed()
        if is_gone(self._request):
            raise CallerGoneError

    async def _abandon(self) -> None:
        if self._relay.readers or self._job.on_disconnect == "finish":
            return
        # From this moment on, a repetition of the request is not given this job, which is about to end.
        self._relay.is_abandoned = True
        # Shielded: when this handler is cancelled, what was begun in the database still goes on to its end.
        try:
            await asyncio.shield(self._request.app[JOBS].submission.abandon(self._job))
        except ServiceError:
            self._relay.is_abandoned = False
            self._relay.poke()
