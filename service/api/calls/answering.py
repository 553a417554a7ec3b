"""Ollama's reply on its way to the caller: byte for byte, as it comes, and never half a reply as if it were whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from aiohttp import web

from service.api.calls.callers import CALLERS, is_gone
from service.api.calls.dialect import Dialect
from service.api.context import CONFIG, JOBS
from service.api.failures import Failure, failure_of_ours
from service.errors import CallFailedError, CorralError
from service.job import Job
from service.relay import Head, Relay

_NOT_PASSED_ON = frozenset(
    {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding", "upgrade", "trailer", "te"}
)
_NO_RETRY = {"x-should-retry": "false"}
"""Read by OpenAI's clients: we have tried again already, and each try of theirs would be another job."""


class CallerGoneError(Exception):
    """The caller has closed the connection."""


class Answer:
    """One caller's reply."""

    def __init__(self, request: web.Request, dialect: Dialect, job: Job, relay: Relay, position: int | None) -> None:
        self._request = request
        self._dialect = dialect
        self._job = job
        self._relay = relay
        self._headers = {"X-Job-Id": job.id}
        if position is not None:
            self._headers["X-Queue-Position"] = str(position)
        self._response: web.StreamResponse | None = None

    async def give(self) -> web.StreamResponse:
        """Answer the caller. A caller that leaves takes its job along, unless it asked otherwise."""
        with self._request.app[CALLERS].waiting(self._request, self._relay):
            try:
                response = await self._relayed()
            except (CallerGoneError, ConnectionError):
                await self._abandon()
                return web.Response(status=499, headers=self._headers)
        if self._relay.failure is not None:
            await self._abandon()
        return response

    async def _relayed(self) -> web.StreamResponse:
        relay = self._relay
        if not self._job.is_streamed:
            await self._until(whole=True)
            if relay.head is None or relay.failure is not None:
                return await self._refused()
            return await self._whole(relay.head, b"".join(relay.chunks))
        await self._until(whole=False)
        if relay.head is None:
            return await self._refused()
        if relay.head.status >= 400:
            return await self._whole(relay.head, b"".join(relay.chunks))
        return await self._stream(relay.head)

    async def _refused(self) -> web.StreamResponse:
        """There will be no reply of Ollama's."""
        failure = self._relay.failure
        if self._response is not None:
            return await self._broken(self._response)
        told = failure_of_ours(failure) if failure is not None else None
        if told is None:
            told = Failure(503, "the backend gave no reply")
        headers = {**told.headers, **self._headers}
        if isinstance(failure, CallFailedError):
            headers |= _NO_RETRY
        return self._dialect.shape(told._replace(headers=headers))

    async def _whole(self, head: Head, body: bytes) -> web.StreamResponse:
        if self._response is not None:
            return await self._broken(self._response)
        headers = {**passed_on(head.headers), **self._headers}
        if head.status >= 500:
            headers |= _NO_RETRY
        return web.Response(status=head.status, headers=headers, body=body)

    async def _stream(self, head: Head) -> web.StreamResponse:
        relay = self._relay
        response = self._response or await self._begin(head.status, passed_on(head.headers), head.headers)
        sent = 0
        while True:
            if sent < len(relay.chunks):
                data = relay.chunks[sent] if sent + 1 == len(relay.chunks) else b"".join(relay.chunks[sent:])
                sent = len(relay.chunks)
                await response.write(data)
            elif relay.is_ended:
                break
            else:
                await self._changed()
        if relay.failure is not None:
            return await self._broken(response)
        await response.write_eof()
        return response

    async def _begin(self, status: int, headers: Mapping[str, str], framing: Mapping[str, str]) -> web.StreamResponse:
        self._relay.is_sent = True
        response = web.StreamResponse(status=status, headers={**headers, **self._headers})
        length = framing.get("Content-Length")
        if length is not None:
            response.content_length = int(length)
        else:
            response.enable_chunked_encoding()
        await response.prepare(self._request)
        self._response = response
        return response

    async def _broken(self, response: web.StreamResponse) -> web.StreamResponse:
        """Say so in the dialect's words, and close the connection without the terminating chunk.

        Some clients pass over an error line and take the answer for whole, but none a broken connection.
        """
        if not self._relay.has_told_error:
            await response.write(self._dialect.error_frame(self._job.endpoint, str(self._relay.failure)))
        if self._request.transport is not None:
            self._request.transport.close()
        return response

    async def _until(self, *, whole: bool) -> None:
        """Wait for the reply's head, or for all of it; meanwhile keep the connection alive where that is asked for."""
        seconds = self._request.app[CONFIG].queue.heartbeat_seconds
        relay = self._relay
        while not relay.is_ended and (whole or relay.head is None):
            if not seconds or not self._job.is_streamed:
                await self._changed()
                continue
            try:
                async with asyncio.timeout(seconds):
                    await self._changed()
            except TimeoutError:
                await self._beat()

    async def _beat(self) -> None:
        response = self._response
        if response is None:
            kind = "application/x-ndjson" if self._job.endpoint.startswith("/api/") else "text/event-stream"
            response = await self._begin(200, {"Content-Type": kind}, {})
            # Nothing of an answer was sent: a failed attempt may still be repeated.
            self._relay.is_sent = False
        await response.write(self._dialect.heartbeat(self._job.endpoint, self._job.model))

    async def _changed(self) -> None:
        await self._relay.changed()
        if is_gone(self._request):
            raise CallerGoneError

    async def _abandon(self) -> None:
        if self._job.on_disconnect != "finish":
            # Shielded: what was begun in the database must not be left half done by whoever cancels this handler.
            with contextlib.suppress(CorralError):
                await asyncio.shield(self._request.app[JOBS].abandon(self._job))


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of Ollama's reply that are the caller's to see."""
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON}
