"""What one caller is sent, with signs of life in a stream whenever nothing else is: clients, and proxies on the way to
them, give up on silence.

A sign of life is no byte of an answer: its job may still be tried again. It stands between lines or events, never in
one. With the first of them the status is sent, so that a later refusal can only be told in the stream.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from aiohttp import web

from service.api.context import CLOCK, QUEUE
from service.api.dropin.dialect import Dialect
from service.api.http.callers import CALLERS, WaitingCaller, hang_up
from service.api.http.operation import EVENT_STREAM
from service.api.http.raw_replies import stream_reply
from service.job import Job


class CallerStream:
    """The way to one caller, to be used as ``with CallerStream(…) as stream``. A caller that asked for a whole reply is
    sent no sign of life.

    The timer is set once and looks, when it fires, at how long nothing was sent: what is sent costs no more than a look
    at the clock.
    """

    def __init__(self, request: web.Request, dialect: Dialect, job: Job) -> None:
        self._request = request
        self._dialect = dialect
        self._endpoint = job.endpoint
        self._model = job.model
        self._caller = WaitingCaller(request, _nobody)
        self._seconds = request.app[QUEUE].present.heartbeat_seconds if job.is_streamed else 0.0
        self._loop = asyncio.get_running_loop()
        self._silent_since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._response: web.StreamResponse | None = None

    def __enter__(self) -> CallerStream:
        self._request.app[CALLERS].add(self._caller)
        if self._seconds:
            self._timer = self._loop.call_at(self._silent_since + self._seconds, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._request.app[CALLERS].remove(self._caller)
        if self._timer is not None:
            self._timer.cancel()

    def wakes(self, wake: Callable[[], object]) -> None:
        """Call this from now on when the caller has left, and when a sign of life is due."""
        self._caller.leave = wake

    @property
    def is_begun(self) -> bool:
        """Whether status and headers are sent, so that neither can be another."""
        return self._response is not None

    @property
    def due_in_seconds(self) -> float:
        """When the caller should be sent a sign of life if nothing else comes; infinite where it should not."""
        return self._silent_since + self._seconds - self._loop.time() if self._seconds else math.inf

    @property
    def is_due(self) -> bool:
        """Whether that is now."""
        return self.due_in_seconds <= 0

    async def begin(self, status: int, headers: Sequence[tuple[str, str]], size: int | None = None) -> None:
        """Begin the reply, of so many bytes where that is known. Its head goes out with the first bytes."""
        self._response = response = stream_reply(self._request, status, headers, size)
        await response.prepare(self._request)

    async def write(self, data: bytes, behind: int = 0) -> None:
        """Send whole lines or events, behind which so many bytes are there already. Raises ConnectionError when the
        caller is gone.
        """
        await self._caller.write(self._begun, data, behind)
        self._silent_since = self._loop.time()

    async def end(self, data: bytes) -> web.StreamResponse:
        """Send the last of them, after which the reply is whole. Raises ConnectionError."""
        await self._caller.end(self._begun, data)
        return self._begun

    async def beat(self, headers: Mapping[str, str]) -> None:
        """Send a sign of life; ``headers`` are those of a reply that has not begun. Raises ConnectionError."""
        if self._response is None:
            await self.begin(200, [("Content-Type", self._dialect.stream_type), *headers.items()])
        await self.write(self._dialect.heartbeat(self._endpoint, self._model, self._request.app[CLOCK].now_ms()))

    async def broken(
        self, message: str, status: int | None = None, *, has_told_error: bool = False
    ) -> web.StreamResponse:
        """End a stream that is not whole with an error as the dialect tells it. ``status`` is the one that a refusal
        would have had; None for an answer that broke off. ``has_told_error``: Ollama's own last words are its error.

        Server-sent events end as HTTP says: their clients raise on the error, and a page that meets a broken connection
        throws away what it has. Our error is always the last of them, as not every client reads Ollama's. Lines end
        with a broken connection, since some clients overlook the error there and take a proper end for the answer's.
        """
        frame = self._dialect.error_frame(self._endpoint, message, status)
        if self._dialect.stream_type == EVENT_STREAM:
            return await self.end(frame)
        if not has_told_error:
            await self.write(frame)
        hang_up(self._request)
        return self._begun

    @property
    def _begun(self) -> web.StreamResponse:
        assert self._response is not None
        return self._response

    def _look(self) -> None:
        due_in_seconds = self.due_in_seconds
        if due_in_seconds <= 0:
            self._caller.leave()
            due_in_seconds = self._seconds
        self._timer = self._loop.call_later(due_in_seconds, self._look)


def _nobody() -> None:
    return None
