"""Replies, whole and in pieces, whose head is written here. Private to aiohttp are ``StreamResponse._status`` and
``StreamResponse._send_headers_immediately``; and it must ask no more of a reply than ``_Raw`` has.

Where anybody else has a say in the head, it is left to aiohttp; else it goes out in one piece with what follows it.
The general way, a multidict of headers that hooks look at and that is then made into lines, takes aiohttp nearly as
long as all else that it does for a poll (20 of 49 µs). Most replies need none of it: no page of another origin asks.
"""

from __future__ import annotations

import asyncio
import sys
import time
from abc import abstractmethod
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE

from service.api.access.auth import rate_limit_headers
from service.coalescing import CoalescedWrites

Headers = Sequence[tuple[str, str]]

COALESCED_WRITES = web.AppKey("coalesced_writes", CoalescedWrites)

_FIRST_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_BODILESS = (204, 304)
_MOST_LEFT_BYTES = 64 * 1024
_END = b"0\r\n\r\n"
"""Of a chunked body (RFC 9112, 7.1)."""


def whole_reply(request: web.Request, status: int, headers: Headers, body: bytes) -> web.StreamResponse:
    """A reply with the whole of its body."""
    lines = _own_lines(request, status, headers)
    return (
        web.Response(status=status, headers=headers, body=body)
        if lines is None
        else _RawReply(status, lines, body, request.app[COALESCED_WRITES])
    )


def stream_reply(request: web.Request, status: int, headers: Headers) -> web.StreamResponse:
    """A reply whose body is still to come, in pieces; its head goes out with the first of them."""
    lines = _own_lines(request, status, headers)
    return (
        _Stream(status=status, headers=headers)
        if lines is None
        else _RawStream(status, lines, request.app[COALESCED_WRITES])
    )


def _own_lines(request: web.Request, status: int, headers: Headers) -> str | None:
    """The headers as they stand in the head of a reply; None where it is to be written the general way.

    Whatever hears of replies before they are sent (``on_response_prepare``) must have its condition here.
    """
    if (
        hdrs.ORIGIN in request.headers
        or status in _BODILESS
        or request.method == hdrs.METH_HEAD
        or not request.keep_alive
        or request.version != HttpVersion11
    ):
        return None
    told = rate_limit_headers(request)
    if told:
        headers = [*(header for header in headers if header[0].lower() not in told), *told.items()]
    lines = ""
    for name, value in headers:
        if not value.isprintable():
            # Such as the end of a line: that is for aiohttp to refuse.
            return None
        lines += f"{name}: {value}\r\n"
    return lines


class _Stream(web.StreamResponse):
    """The general way."""

    _send_headers_immediately = False


class _Raw(web.StreamResponse):
    """What both kinds have in common.

    There is nothing in it of what a StreamResponse makes for itself: the headers are written, and to make an empty
    multidict for others takes longer than to write them.
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
        """Send the last of it, once, when the caller has taken most of what was sent before; a large one is not left to
        the transport, either. Raises ConnectionError when nobody is there any more.
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
        await request.writer.drain()
        if len(last) > _MOST_LEFT_BYTES:
            await request.writer.write(last)
            await request.writer.drain()
            return
        self._writes.send(transport, last)
        if sys.version_info >= (3, 12):
            # There aiohttp begins its tasks at once: what comes next on this connection could be answered, or end it,
            # before this turn does.
            await asyncio.sleep(0)

    @abstractmethod
    def _last(self, data: bytes) -> bytes:
        """What is left to send when ``data`` is the last of the body."""


class _RawReply(_Raw):
    """``lines`` are its headers but for those that every reply has."""

    def __init__(self, status: int, lines: str, body: bytes, writes: CoalescedWrites) -> None:
        super().__init__(status, writes)
        self._whole = _head(status, f"{lines}Content-Length: {len(body)}\r\n") + body

    def _last(self, data: bytes) -> bytes:
        return self._whole


class _RawStream(_Raw):
    """In the chunks of HTTP."""

    def __init__(self, status: int, lines: str, writes: CoalescedWrites) -> None:
        super().__init__(status, writes)
        self._unsent_head = _head(status, f"{lines}Transfer-Encoding: chunked\r\n")

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a piece, which must not be empty; returns when the caller has taken most of it.

        Raises ConnectionError when nobody is there any more.
        """
        assert self._request is not None
        piece = self._after_head(b"".join((b"%x\r\n" % len(data), data, b"\r\n")))
        self._size += len(piece)
        await self._request.writer.write(piece)

    def _last(self, data: bytes) -> bytes:
        return self._after_head(b"%x\r\n%b\r\n%b" % (len(data), data, _END) if data else _END)

    def _after_head(self, piece: bytes) -> bytes:
        head, self._unsent_head = self._unsent_head, b""
        return head + piece if head else piece


def _head(status: int, lines: str) -> bytes:
    first = _FIRST_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
    return f"{first}{lines}{_closing_lines(int(time.time()))}".encode()


@lru_cache(maxsize=2)
def _closing_lines(second: int) -> str:
    return f"Date: {formatdate(second, usegmt=True)}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n"
