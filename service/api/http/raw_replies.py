"""Replies, whole and in pieces, whose head is written here. Private to aiohttp are ``StreamResponse._status`` and
``StreamResponse._send_headers_immediately``; and it must ask no more of a reply than ``_Raw`` has.

aiohttp keeps headers in a multidict, which hooks may change, and then makes lines of them: that takes nearly as long as
all else that it does for a poll (20 of 49 µs). Only replies to pages of other origins, and a few more, need it; they
are left to aiohttp. The head of any other reply goes out in one piece with what follows it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from abc import abstractmethod
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from service.api.access.auth import callers_headers
from service.api.http.callers import CALLERS
from service.coalescing import CoalescedWrites

Headers = Sequence[tuple[str, str]]

SERVER = "Corral"
"""As every reply names what serves it; versions are nobody's business."""
COALESCED_WRITES = web.AppKey("coalesced_writes", CoalescedWrites)

_FIRST_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_BODILESS = (204, 304)
_MOST_LEFT_BYTES = 64 * 1024
_UNBUFFERED = ("X-Accel-Buffering", "no")
"""Without it nginx collects what comes before it sends it on."""
_RESET_AT_CLOSE, _END_AT_CLOSE = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
"""Values of SO_LINGER (``socket(7)``)."""
_END = b"0\r\n\r\n"
"""The end of a chunked body (RFC 9112, 7.1)."""


def whole_reply(request: web.Request, status: int, headers: Headers, body: bytes) -> web.StreamResponse:
    """A reply with the whole of its body."""
    lines = _own_lines(request, status, headers)
    if lines is not None:
        return _RawReply(status, lines, body, request.app[COALESCED_WRITES])
    if len(body) > _MOST_LEFT_BYTES:
        return _LargeReply(request, status, headers, body)
    return web.Response(status=status, headers=headers, body=body)


def stream_reply(request: web.Request, status: int, headers: Headers, size: int | None = None) -> web.StreamResponse:
    """A reply whose body is still to come, in pieces; its head goes out with the first of them. ``size`` is the body's
    in bytes, where that is known.
    """
    if size is None:
        headers = [*headers, _UNBUFFERED]
    lines = _own_lines(request, status, headers)
    if lines is not None:
        return _RawStream(status, lines, request.app[COALESCED_WRITES], size)
    if size is None and request.version < HttpVersion11:
        return _StreamUntilClosed(request, status, headers)
    stream = _Stream(status=status, headers=headers)
    stream.content_length = size
    return stream


async def name_server(_request: web.Request, response: web.StreamResponse) -> None:
    """A hook for the replies that aiohttp writes."""
    response.headers[hdrs.SERVER] = SERVER


def _own_lines(request: web.Request, status: int, headers: Headers) -> str | None:
    """The headers as lines of a reply's head; None where aiohttp is to write them.

    Each hook on replies (``on_response_prepare``) needs a condition here, or must do nothing for such replies.
    """
    if (
        hdrs.ORIGIN in request.headers
        or status in _BODILESS
        or request.method == hdrs.METH_HEAD
        or not request.keep_alive
        or request.version != HttpVersion11
    ):
        return None
    told = callers_headers(request)
    if told:
        headers = [*(header for header in headers if header[0].lower() not in told), *told.items()]
    lines = ""
    for name, value in headers:
        if not value.isprintable():
            # It holds a line's end or the like, which aiohttp refuses.
            return None
        lines += f"{name}: {value}\r\n"
    return lines


class _LargeReply(web.Response):
    """A whole reply that aiohttp writes, for as long as its caller takes it."""

    def __init__(self, request: web.Request, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(status=status, headers=headers, body=body)
        self._asked = request
        self._body_size = len(body)

    async def write_eof(self, data: bytes = b"") -> None:
        with self._asked.app[CALLERS].sending(self._asked, self._body_size):
            await super().write_eof(data)


class _Stream(web.StreamResponse):
    """A stream whose head aiohttp writes."""

    _send_headers_immediately = False


class _StreamUntilClosed(_Stream):
    """A stream of unknown length to an HTTP/1.0 peer, which knows no chunks and takes a closed connection for the end.

    Until its last byte is written, the connection is one that whatever closes it resets. Else a stream that is cut
    would look whole; nginx, for one, asks in HTTP/1.0 unless it is told otherwise.
    """

    def __init__(self, request: web.Request, status: int, headers: Headers) -> None:
        super().__init__(status=status, headers=headers)
        self.force_close()
        self._asked = request
        self._is_reset_at_close = False

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self._reset_at_close()
        await super().write(data)

    async def write_eof(self, data: bytes = b"") -> None:
        if data:
            self._reset_at_close()
        transport = self._asked.transport
        if self._is_reset_at_close and transport is not None and not transport.is_closing():
            # What the kernel has is sent whatever becomes of this process, so nothing must wait here for its turn.
            transport.set_write_buffer_limits(0)
        await super().write_eof(data)
        await self._asked.writer.drain()
        if self._is_reset_at_close and transport is not None and not transport.is_closing():
            self._is_reset_at_close = False
            self._linger(_END_AT_CLOSE)

    def _reset_at_close(self) -> None:
        if not self._is_reset_at_close:
            self._is_reset_at_close = True
            self._linger(_RESET_AT_CLOSE)

    def _linger(self, how: bytes) -> None:
        connection = self._asked.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)


class _Raw(web.StreamResponse):
    """What both kinds of raw replies have in common.

    StreamResponse's own constructor is not called: the headers are written already, and making its empty multidict
    takes longer than writing them.
    """

    _request: web.BaseRequest | None = None
    _is_ended = False
    _size = 0

    def __init__(self, status: int, writes: CoalescedWrites) -> None:
        self._status = status
        self._writes = writes

    @property
    def keep_alive(self) -> bool:
        return True

    @property
    def body_length(self) -> int:
        return self._size

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self._request = request
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the last of the reply, once, after the caller has read most of what was sent before; a large one is
        waited for, too. Raises ConnectionError when the caller is gone.
        """
        if self._is_ended:
            return
        self._is_ended = True
        last = self._last(data)
        self._size += len(last)
        request = self._request
        transport = request.transport if request is not None else None
        if request is None or transport is None or transport.is_closing():
            raise ConnectionResetError("the caller has closed the connection")
        if len(last) > _MOST_LEFT_BYTES or transport.get_write_buffer_size():
            assert isinstance(request, web.Request)
            with request.app[CALLERS].sending(request, len(last)):
                await request.writer.drain()
                if len(last) > _MOST_LEFT_BYTES:
                    await request.writer.write(last)
                    await request.writer.drain()
                    return
        self._writes.send(transport, last)
        if sys.version_info >= (3, 12):
            # There aiohttp starts its tasks at once: the next request on this connection could be answered, or could
            # close it, before the coalesced write is made at the end of this turn.
            await asyncio.sleep(0)

    @abstractmethod
    def _last(self, data: bytes) -> bytes:
        """The bytes that are still to be sent when ``data`` is the last of the body."""


class _RawReply(_Raw):
    """A whole reply. ``lines`` are its headers, without those that every reply has."""

    def __init__(self, status: int, lines: str, body: bytes, writes: CoalescedWrites) -> None:
        super().__init__(status, writes)
        self._whole = _head(status, f"{lines}Content-Length: {len(body)}\r\n") + body

    def _last(self, data: bytes) -> bytes:
        return self._whole


class _RawStream(_Raw):
    """A reply in pieces: in chunks (RFC 9112, 7.1), unless its size is known."""

    def __init__(self, status: int, lines: str, writes: CoalescedWrites, size: int | None) -> None:
        super().__init__(status, writes)
        self._is_chunked = size is None
        length = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
        self._unsent_head = _head(status, f"{lines}{length}\r\n")

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a piece, which must not be empty, and wait until the caller has read most of it.

        Raises ConnectionError when the caller is gone.
        """
        assert self._request is not None
        piece = self._after_head(b"".join((b"%x\r\n" % len(data), data, b"\r\n")) if self._is_chunked else bytes(data))
        self._size += len(piece)
        await self._request.writer.write(piece)

    def _last(self, data: bytes) -> bytes:
        if not self._is_chunked:
            return self._after_head(data)
        return self._after_head(b"%x\r\n%b\r\n%b" % (len(data), data, _END) if data else _END)

    def _after_head(self, piece: bytes) -> bytes:
        head, self._unsent_head = self._unsent_head, b""
        return head + piece if head else piece


def _head(status: int, lines: str) -> bytes:
    first = _FIRST_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
    return f"{first}{lines}{_closing_lines(int(time.time()))}".encode()


@lru_cache(maxsize=2)
def _closing_lines(second: int) -> str:
    return f"Date: {formatdate(second, usegmt=True)}\r\nServer: {SERVER}\r\n\r\n"
