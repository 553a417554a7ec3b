"""A caller's connection: bounds on the heads of requests, and refusals of what is no HTTP. Private to aiohttp are
``RequestHandler._messages``, ``RequestHandler._request_count``, ``RequestHandler._payload_parser``,
``RequestHandler._upgraded``, ``RequestHandler._parser``, ``RequestHandler._current_request``,
``RequestHandler._lingering_time``, ``Server._loop`` and ``Server._kwargs``.

aiohttp bounds each header and their number, but keeps all of them, as it does with the trailers of a body in chunks. It
refuses in plain text, and leaves a handler waiting whose caller sends a broken body.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any, cast
from urllib.parse import urlsplit

from aiohttp import StreamReader, hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from service.api.access.request_id import HEADER, UNREAD, request_id_in
from service.api.access.unread_head import header_in
from service.api.http.connection_bounds import Connections
from service.api.http.cross_origin import add_cross_origin_headers
from service.api.http.failures import ErrorShapes, Failure
from service.api.http.parameters import LONGEST_ADDRESS
from service.api.http.raw_replies import SERVER

_log = logging.getLogger(__name__)

LONGEST_HEADER = 65 * 1024
"""Bytes of a header's name and value: tokens and cookies of single sign-on grow to 64 KiB."""
MOST_HEADERS = 256
"""Proxies add far fewer."""
MOST_HEAD_BYTES = 256 * 1024
"""Of all headers of a request, its trailers included (Ollama: 1 MiB)."""
_LAST_SECONDS = 2.0
"""How long a caller that was refused may go on sending, so that it reads the refusal."""


class CallersServer(web.Server):
    """Makes the connections of callers."""

    shapes: ErrorShapes
    callers: Connections
    allowed_origins: Collection[str]

    def __call__(self) -> RequestHandler:
        return CallerConnection(self, loop=self._loop, **self._kwargs)


class CallerConnection(RequestHandler):
    """One caller's connection."""

    __slots__ = (
        "_allowed_origins",
        "_begun",
        "_body",
        "_body_bytes",
        "_connections",
        "_counted_as",
        "_gone",
        "_head_bytes",
        "_is_spent",
        "_origin",
        "_path",
        "_request_id",
        "_shapes",
    )

    def __init__(self, server: CallersServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._shapes = server.shapes
        self._connections = server.callers
        self._allowed_origins = server.allowed_origins
        self._counted_as: str | None = None
        """The address under which the connection is counted; None: it is not."""
        self._head_bytes = 0
        """Of a head whose end has not come yet."""
        self._begun = b""
        """The beginning of that head, with the path."""
        self._body: StreamReader | None = None
        """The last request's, while more of it is to come."""
        self._body_bytes = 0
        self._is_spent = False
        """Whether a refusal is on its way, behind which nothing is read."""
        self._path = ""
        """Of the request that was refused."""
        self._request_id: str | None = None
        """What its caller calls it."""
        self._origin: str | None = None
        """Of the page that sent it, where that could be read."""
        self._gone: asyncio.Event | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or answer and close it where there are too many."""
        counted_as = self._connections.enter(transport)
        if isinstance(counted_as, bytes):
            refused = cast(asyncio.Transport, transport)
            refused.set_protocol(asyncio.Protocol())
            refused.write(counted_as)
            refused.close()
            return
        self._counted_as = counted_as
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Have aiohttp read a piece. What of heads it keeps is bounded by their sum and one piece more."""
        if self._payload_parser is not None or self._upgraded:
            # A websocket's frames have bounds of their own.
            super().data_received(data)
            return
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            self._heads_ended(self._request_count - count, data)
        elif self._body is not None:
            self._body_went_on(self._body, data)
        elif data:
            self._head_went_on(data)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The reply to what is no HTTP, in the shape of its path."""
        if not isinstance(exc, HttpProcessingError):
            response = super().handle_error(request, status, exc, message)
            response.headers[hdrs.SERVER] = SERVER
            return response
        _log.info("refused what is no HTTP: %s", type(exc).__name__)
        shaped = self._shapes.find(self._path)(_failure_of(exc))
        self._gone = asyncio.Event()
        last = _LastReply(self.transport, self._gone, status=shaped.status, headers=shaped.headers, body=shaped.body)
        last.headers[hdrs.SERVER] = SERVER
        if self._request_id is not None:
            # For the access log, too.
            last.headers[HEADER] = request[UNREAD] = self._request_id
        add_cross_origin_headers(last.headers, self._origin, self._allowed_origins)
        last.force_close()
        return last

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted_as is not None:
            self._connections.leave(self._counted_as)
            self._counted_as = None
        if self._gone is not None:
            self._gone.set()
        self._body = None
        super().connection_lost(exc)

    def _heads_ended(self, count: int, data: bytes) -> None:
        message, payload = self._messages[-1]
        begun, head_bytes = self._begun or data, self._head_bytes + len(data)
        self._begun, self._head_bytes = b"", 0
        if not isinstance(message, RawRequestMessage):
            self._broken(begun)
        elif head_bytes > MOST_HEAD_BYTES and any(map(_is_too_large, list(self._messages)[-count:])):
            for _ in range(count):
                self._messages.pop()
            self._refuse(begun)
        else:
            self._body = None if payload.is_eof() else payload
            self._body_bytes = 0

    def _head_went_on(self, data: bytes) -> None:
        if self._is_spent:
            return
        if self._head_bytes == 0:
            self._begun = data[: LONGEST_ADDRESS + len("OPTIONS  HTTP/1.1")]
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            # A request that came together with an upgrade that was declined is not seen here.
            request = self._current_request
            if request is not None and not request.content.is_eof():
                self._head_bytes, self._body = 0, request.content
                return
            self._refuse(self._begun)

    def _body_went_on(self, body: StreamReader, data: bytes) -> None:
        if body.is_eof():
            self._body, self._head_bytes = None, 0
        elif body.total_bytes != self._body_bytes:
            self._body_bytes = body.total_bytes
        else:
            # It is no part of the body: trailers, or the extension of a chunk.
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(b"")

    def _refuse(self, begun: bytes) -> None:
        """Have a head that is too large answered like one that cannot be read."""
        error = HttpProcessingError(code=431, message=f"its headers are larger than {MOST_HEAD_BYTES} bytes")
        self._parser = cast(Any, _SpentParser(error))
        super().data_received(b"")
        self._broken(begun)

    def _broken(self, begun: bytes) -> None:
        """aiohttp has noted an error as the newest message: what comes after it cannot be understood."""
        self._begun = b""
        body, self._body = self._body, None
        if body is None or body.is_eof():
            self._path, self._request_id = _path_in(begun), request_id_in(begun)
            self._origin = header_in(begun, "origin")
            self._parser = cast(Any, _SpentParser())
            self._is_spent = True
            return
        error, _ = self._messages.pop()
        self._lingering_time = 0.0
        if self._current_request is None and not self._messages:
            # It is answered already, and the rest of its body was to be thrown away.
            body.feed_eof()
        else:
            body.set_exception(web.RequestPayloadError(_words_of(error.exc)))  # type: ignore[union-attr]
        self.close()


class _SpentParser:
    """Stands where aiohttp's parser was: it raises an error once, and throws away what still comes."""

    def __init__(self, error: HttpProcessingError | None = None) -> None:
        self._error = error

    def feed_data(self, _data: bytes) -> tuple[tuple[()], bool, bytes]:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return (), False, b""

    def feed_eof(self) -> None:
        pass

    def message_consumed(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def set_upgraded(self, _is_upgraded: bool) -> None:
        pass


class _LastReply(web.Response):
    """The last reply on a connection. A caller that still sends may read it before the connection is closed, which
    would take it away.
    """

    def __init__(self, transport: asyncio.Transport | None, gone: asyncio.Event, **options: Any) -> None:
        super().__init__(**options)
        self._transport = transport
        self._gone = gone

    async def write_eof(self, data: bytes = b"") -> None:
        transport = self._transport
        await super().write_eof(data)
        if transport is None or not transport.can_write_eof():
            return
        transport.write_eof()
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self._gone.wait()
        except TimeoutError:
            return


def _is_too_large(queued: tuple[Any, StreamReader]) -> bool:
    message, _ = queued
    return sum(len(name) + len(value) for name, value in message.raw_headers) > MOST_HEAD_BYTES


def _failure_of(error: HttpProcessingError) -> Failure:
    return Failure(error.code, f"the request cannot be read: {_words_of(error)}")


def _words_of(error: BaseException) -> str:
    if isinstance(error, LineTooLong):
        what = "its address" if error.args[1] == LONGEST_ADDRESS else "a header"
        return f"{what} is longer than {error.args[1]} bytes"
    text = error.message if isinstance(error, HttpProcessingError) else str(error)
    # What follows shows the place, as it came.
    return text.partition("\n")[0].rstrip(":")


def _path_in(begun: bytes) -> str:
    """The path of a request of which only the beginning is known, "" for what is none."""
    words = begun.lstrip(b"\r\n").partition(b"\n")[0].split(b" ")
    target = words[1].decode("latin-1").strip() if len(words) > 1 else ""
    try:
        return target.partition("?")[0] if target.startswith("/") else urlsplit(target).path
    except ValueError:
        return ""
