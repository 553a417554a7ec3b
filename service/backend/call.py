"""One call to a backend: the head of its reply, and its body as it arrives."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterable
from functools import lru_cache
from types import TracebackType

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from service.backend.classification import foreign_reply
from service.backend.connections import is_new_connection
from service.backend.watch import Limits, Watch
from service.errors import BackendError, Fault

_LARGE_BYTES = 256 * 1024
_SMALL_REPLY_BYTES = 16 * 1024 * 1024
_STALE_SECONDS = 1.0
_MOST_STALE = 3

Body = bytes | AsyncIterable[bytes] | None


class Reply:
    """What Ollama answers to a call: its head, and its body as it arrives."""

    __slots__ = ("_backend", "_response", "_watch", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, watch: Watch, backend: str) -> None:
        self._response = response
        self._watch = watch
        self._backend = backend
        self.status = response.status
        self.headers: CIMultiDictProxy[str] = response.headers

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case; "" when there is none."""
        return _media_type(self._response)

    def chunks(self) -> Chunks:
        """The body in the pieces in which it arrives. Reading on raises BackendError when it stalls or breaks off."""
        return Chunks(self._response.content, self._watch, self._backend)

    async def read(self, limit_bytes: int = _SMALL_REPLY_BYTES) -> bytes:
        """The whole body; for errors and other small replies. Beyond the limit it is ``not_ollama``."""
        pieces = []
        size = 0
        async for data in self.chunks():
            size += len(data)
            if size > limit_bytes:
                raise not_ollama(self._backend, f"a reply of more than {limit_bytes} bytes")
            pieces.append(data)
        return b"".join(pieces)


class Chunks:
    """The pieces of a body. Not a generator: one that is left early would be closed later, by a task of its own."""

    __slots__ = ("_backend", "_content", "_watch")

    def __init__(self, content: aiohttp.StreamReader, watch: Watch, backend: str) -> None:
        self._content = content
        self._watch = watch
        self._backend = backend

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        content = self._content
        watch = self._watch
        watch.begin_wait(content.total_bytes)
        try:
            data = await content.readany()
        except (aiohttp.ClientError, OSError) as problem:
            raise watch.error or _lost(self._backend, problem) from problem
        watch.end_wait()
        if not data:
            raise StopAsyncIteration
        return data


class Call:
    """A call under way, as an asynchronous context manager. Leaving it before the body's end closes the connection."""

    __slots__ = ("_backend", "_body", "_headers", "_limits", "_method", "_response", "_session", "_url", "_watch")

    def __init__(
        self,
        session: aiohttp.ClientSession,
        backend: str,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: Body,
        limits: Limits,
    ) -> None:
        self._session = session
        self._backend = backend
        self._method = method
        self._url = url
        self._headers = headers
        self._body = body
        self._limits = limits
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> Reply:
        loop = asyncio.get_running_loop()
        self._watch = watch = Watch(loop, self._limits, self._backend)
        try:
            response = await self._send(loop)
            watch.has_headers(response)
            foreign = foreign_reply(response.status, _media_type(response))
            if foreign is not None:
                raise foreign
        except BaseException:
            self._end()
            raise
        return Reply(response, watch, self._backend)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._watch.stop()
        response = self._response
        if response is not None and not response.content.is_eof():
            response.close()

    async def _send(self, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientResponse:
        task = asyncio.current_task()
        cancelling = task.cancelling() if task is not None else 0
        try:
            self._response = await self._send_until_fresh(loop)
        except (BackendError, asyncio.CancelledError) as problem:
            if self._watch.error is None:
                raise
            # The watch ends a wait for the headers by cancelling it; a cancellation of somebody else's goes on.
            is_others = task is not None and task.uncancel() > cancelling
            if is_others and isinstance(problem, asyncio.CancelledError):
                raise
            raise self._watch.error from None
        return self._response

    async def _send_until_fresh(self, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientResponse:
        # A kept connection that the server had closed fails at once and says nothing about the server. As many as were
        # closed together may be waiting in the pool.
        for _ in range(_MOST_STALE):
            started = loop.time()
            is_new_connection.set(False)
            try:
                return await self._request()
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as problem:
                is_stale = not is_new_connection.get() and loop.time() - started < _STALE_SECONDS
                if not is_stale or isinstance(self._body, AsyncIterable):
                    raise _failed(self._backend, problem) from problem
            except (aiohttp.ClientError, OSError, ValueError) as problem:
                raise _failed(self._backend, problem) from problem
        raise _lost(self._backend, None)

    async def _request(self) -> aiohttp.ClientResponse:
        body = self._body
        if isinstance(body, bytes) and len(body) > _LARGE_BYTES:
            # Written in pieces, so that nobody else waits for tens of megabytes of images.
            return await self._post(io.BytesIO(body))
        return await self._post(body)

    async def _post(self, data: io.BytesIO | Body) -> aiohttp.ClientResponse:
        return await self._session.request(
            self._method,
            self._url,
            data=data,
            headers=self._headers,
            timeout=_connect_timeout(self._limits.connect),
            allow_redirects=False,
        )


def _media_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


@lru_cache(maxsize=32)
def _connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    # It starts a timer only where a connection is made; everything else is the watch's.
    return aiohttp.ClientTimeout(total=None, connect=seconds)


def _failed(name: str, problem: Exception) -> BackendError:
    """What it means that no head of a reply came."""
    if isinstance(problem, aiohttp.ConnectionTimeoutError):
        return BackendError(f"{name} did not accept a connection in time", code="connect_failed", fault=Fault.ABSENT)
    if isinstance(problem, aiohttp.ClientConnectorError | aiohttp.InvalidURL):
        return BackendError(f"{name} cannot be reached: {problem}", code="connect_failed", fault=Fault.ABSENT)
    if isinstance(problem, aiohttp.ClientResponseError | ValueError):
        return not_ollama(name, "something that is not HTTP")
    return _lost(name, problem)


def _lost(name: str, problem: Exception | None) -> BackendError:
    return BackendError(
        f"the connection to {name} was lost: {problem or 'it was closed'}",
        code="connection_lost",
        fault=Fault.TRANSIENT,
    )


def not_ollama(name: str, what: str) -> BackendError:
    return BackendError(f"{name} is not Ollama: it answered with {what}", code="not_ollama", fault=Fault.ABSENT)
