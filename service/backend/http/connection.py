"""One HTTP/1.1 connection to a backend: a request goes out, and its reply comes in by pieces.

Written here because it is in the way of every token: a library's client costs as much for a stream as all the rest of
its way (``tests/bench``). What is hard about HTTP, reading it, is llhttp's, through httptools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict, CIMultiDictProxy

from service.coalescing import CoalescedWrites

_MOST_HEAD_BYTES = 256 * 1024
_MOST_WAITING_BYTES = 1024 * 1024
"""More of a body is not taken from the network before the rest is read."""


class NotHttpError(Exception):
    """What came is no reply of HTTP/1."""


class LostError(Exception):
    """The connection ended before the reply did."""


class Connection(asyncio.Protocol):
    """One exchange after the other: ``send``, then ``head``, then ``piece`` until it is empty.

    What is waited for raises LostError, NotHttpError, or whatever ``fail`` was told.
    """

    __slots__ = (
        "_drained",
        "_headers",
        "_is_head_only",
        "_is_out_of_step",
        "_is_paused",
        "_loop",
        "_on_lost",
        "_parser",
        "_pieces",
        "_transport",
        "_waiter",
        "_waiting_bytes",
        "_whole_pieces",
        "_writes",
        "error",
        "has_head",
        "headers",
        "idle_since",
        "is_closed",
        "is_kept",
        "is_reusable",
        "is_whole",
        "on_body",
        "received_bytes",
        "status",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, writes: CoalescedWrites, on_lost: Callable[[Connection], None]
    ) -> None:
        self._loop = loop
        self._writes = writes
        self._on_lost = on_lost
        self._pieces: list[bytes] = []
        # The parser's callback for each piece of a body: a stream has one for every token.
        self.on_body = self._pieces.append
        self._parser: HttpResponseParser | None = None
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self.is_closed = False
        self._is_out_of_step = False
        """It spoke before it was asked: what comes after its first reply is no answer to a next request."""
        self.is_kept = False
        """It has served a request before: the server may have closed it unnoticed."""
        self.idle_since = 0.0
        """The loop's time when its last exchange ended."""
        self._is_head_only = False
        self._begin()

    def _begin(self) -> None:
        self._headers: list[tuple[str, str]] = []
        self._pieces.clear()
        self._whole_pieces: int | None = None
        """How many of them are the reply's, once it is whole."""
        self._waiting_bytes = 0
        self._is_paused = False
        self.received_bytes = 0
        """Of the reply, head and all."""
        self.status = 0
        self.headers: CIMultiDictProxy[str] | None = None
        self.has_head = False
        self.is_whole = False
        """All of the reply has come, if not yet been read."""
        self.is_reusable = False
        self.error: Exception | None = None

    # The exchange

    def send(self, data: bytes, *, is_whole: bool, is_head_only: bool = False) -> None:
        """Begin an exchange with the request, the whole of it or its beginning. ``is_head_only``: it is HEAD; its reply
        has no body.
        """
        if not self.is_closed:
            if self._is_paused:
                self._resume()
            if self.is_kept:
                self._begin()
            elif self.received_bytes:
                self._is_out_of_step = True
                self.is_reusable = False
            self._is_head_only = is_head_only
            if is_whole and self._transport is not None:
                self._writes.send(self._transport, data)
            else:
                self.write(data)

    def write(self, data: bytes | memoryview) -> None:
        """More of the request."""
        if self._transport is not None and not self.is_closed:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until more can be written. Returns at once on a connection that is closed."""
        if self._drained is not None:
            await self._drained

    async def head(self) -> None:
        """Wait for status and headers."""
        while not self.has_head:
            if self.error is not None:
                raise self.error
            await self._wait()

    def take(self) -> bytes:
        """What has come of the body since the last time; b"" when nothing has."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._waiting_bytes = 0
        if self._is_paused:
            self._resume()
        return data

    async def piece(self) -> bytes:
        """The next of the body as soon as there is any; b"" at its end."""
        while True:
            data = self.take()
            if data or self.is_whole:
                return data
            if self.error is not None:
                raise self.error
            await self._wait()

    def fail(self, error: Exception) -> None:
        """End the exchange and the connection: whoever waits for more of the reply gets the error."""
        if self.error is None and not self.is_whole:
            self.error = error
        self.close()

    def close(self) -> None:
        """At once, whatever is under way: that is how Ollama is told to stop."""
        if not self.is_closed:
            self.is_closed = True
            if self.error is None and not self.is_whole:
                self.error = LostError("it was closed")
            if self._transport is not None:
                self._transport.abort()
            self._wake()

    def forget_error(self) -> None:
        """One that was raised holds the frames it went through, and they hold this connection, in a cycle."""
        if self.error is not None:
            self.error = LostError("it was closed")

    def _pause(self) -> None:
        if self._transport is not None and not self.is_closed:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        self._is_paused = False
        if self._transport is not None and not self.is_closed:
            self._transport.resume_reading()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = parser = HttpResponseParser(self)
        # What servers on the way get wrong without doubt about what they mean.
        parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or self.is_closed:
            return
        if self.is_whole:
            # Nobody has asked for more.
            self.close()
            return
        self.received_bytes += len(data)
        self._waiting_bytes += len(data)
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as problem:
            if not self.is_whole:
                self.fail(NotHttpError(str(problem)))
        if self._whole_pieces is not None:
            # What follows is nobody's.
            del self._pieces[self._whole_pieces :]
        if not self.has_head and self.received_bytes > _MOST_HEAD_BYTES:
            self.fail(NotHttpError("endless headers"))
        elif self._waiting_bytes > _MOST_WAITING_BYTES and not self._is_paused:
            self._pause()
        self._wake()

    def pause_writing(self) -> None:
        if self._drained is None:
            self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self.error is None and not self.is_whole:
            if exc is None and _ends_with_its_connection(self.headers):
                self.is_whole = True
            else:
                self.error = LostError(str(exc or "it was closed"))
        self.is_reusable = False
        # The parser holds this connection, and it the parser.
        self._parser = None
        self.resume_writing()
        self._wake()
        self._on_lost(self)

    # What the parser says

    def on_message_begin(self) -> None:
        if self.is_whole:
            # Nobody has asked for another, and the next who asks would get its rest.
            self.is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:
            if b"\0" in value:
                # The parser lets it pass, and nobody could be sent it.
                raise NotHttpError("a header with a null byte")
            self._headers.append((_text(name), _text(value.rstrip(b" \t"))))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        if self.has_head:
            return
        status = parser.get_status_code()
        if status < 200:
            # An interim reply: the one that counts follows (RFC 9110, 15.2).
            self._headers = []
            return
        self.status = status
        self.headers = CIMultiDictProxy(CIMultiDict(self._headers))
        self.has_head = True
        if self._is_head_only:
            # The parser would wait for the body that its length speaks of: this connection serves no other request.
            self.is_whole = True
            self._whole_pieces = 0

    def on_message_complete(self) -> None:
        if self.has_head and not self.is_whole:
            assert self._parser is not None
            self.is_whole = True
            self._whole_pieces = len(self._pieces)
            self.is_reusable = not self._is_out_of_step and self._parser.should_keep_alive()


def _ends_with_its_connection(headers: CIMultiDictProxy[str] | None) -> bool:
    """Whether the reply's head gives its body no other end (RFC 9112, 6.3)."""
    if headers is None or "Content-Length" in headers:
        return False
    return "chunked" not in headers.get("Transfer-Encoding", "").lower()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
