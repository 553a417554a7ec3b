"""One HTTP/1.1 connection to a backend: a request goes out, and its reply comes in by pieces.

It is a protocol on the transports of asyncio or uvloop, without their streams; nothing private of theirs is used. Whole
requests are coalesced writes, which go out at the end of the loop's turn: nothing may be written behind one in the same
turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from service.backend.http.incoming import IncomingReply, NotHttpError
from service.coalescing import CoalescedWrites

_MOST_HEAD_BYTES = 256 * 1024
_MOST_WAITING_BYTES = 1024 * 1024
"""More of a body is not taken from the network before the rest is read."""


class LostError(Exception):
    """The connection ended before the reply did."""


class Connection(asyncio.Protocol):
    """One exchange after the other: ``send``, then ``head``, then ``piece`` until it is empty.

    Waiting raises LostError, NotHttpError, or the error that ``fail`` was given.
    """

    __slots__ = (
        "_drained",
        "_is_out_of_step",
        "_is_paused",
        "_loop",
        "_on_lost",
        "_transport",
        "_waiter",
        "_waiting_bytes",
        "_writes",
        "error",
        "idle_since",
        "incoming",
        "is_closed",
        "is_kept",
        "received_bytes",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, writes: CoalescedWrites, on_lost: Callable[[Connection], None]
    ) -> None:
        self._loop = loop
        self._writes = writes
        self._on_lost = on_lost
        self.incoming = IncomingReply()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self.is_closed = False
        self._is_out_of_step = False
        """The server spoke before it was asked: what comes after its first reply answers no later request."""
        self.is_kept = False
        """It has served a request before: the server may have closed it unnoticed."""
        self.idle_since = 0.0
        """The loop's time when its last exchange ended."""
        self._begin()

    def _begin(self) -> None:
        self._waiting_bytes = 0
        self._is_paused = False
        self.received_bytes = 0
        """Of the reply, head and all."""
        self.error: Exception | None = None

    @property
    def is_reusable(self) -> bool:
        """Whether the reply has come to its end, and the connection may serve another request."""
        return self.incoming.keeps_alive and not self._is_out_of_step and not self.is_closed

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
                self.incoming.begin()
            elif self.received_bytes:
                self._is_out_of_step = True
            self.incoming.is_head_only = is_head_only
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
        while not self.incoming.has_head:
            if self.error is not None:
                raise self.error
            await self._wait()

    def take(self) -> bytes:
        """What has come of the body since the last time; b"" when nothing has."""
        pieces = self.incoming.pieces
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
            if data or self.incoming.is_whole:
                return data
            if self.error is not None:
                raise self.error
            await self._wait()

    def fail(self, error: Exception) -> None:
        """End the exchange and the connection: whoever waits for more of the reply gets the error."""
        if self.error is None and not self.incoming.is_whole:
            self.error = error
        self.close()

    def close(self) -> None:
        """End the connection at once, whatever is under way: that is how Ollama is told to stop."""
        if not self.is_closed:
            self.is_closed = True
            if self.error is None and not self.incoming.is_whole:
                self.error = LostError("it was closed")
            if self._transport is not None:
                self._transport.abort()
            self._wake()

    def forget_error(self) -> None:
        """An error that was raised holds the frames it went through, and they hold this connection: undo the cycle."""
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
        self.incoming.open()

    def data_received(self, data: bytes) -> None:
        if self.is_closed:
            return
        incoming = self.incoming
        if incoming.is_whole:
            # Nobody has asked for what comes behind the reply.
            self.close()
            return
        self.received_bytes += len(data)
        self._waiting_bytes += len(data)
        try:
            incoming.feed(data)
        except NotHttpError as problem:
            self.fail(problem)
        if not incoming.has_head and self.received_bytes > _MOST_HEAD_BYTES:
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
        if self.error is None:
            if exc is None:
                self.incoming.end()
            if not self.incoming.is_whole:
                self.error = LostError(str(exc or "it was closed"))
        self.incoming.close()
        self.resume_writing()
        self._wake()
        self._on_lost(self)
