"""What a waiting caller is to be sent: Ollama's reply, byte for byte, as it comes.

The attempt fills it and never waits; the answer to the caller reads it at the caller's pace. A failed attempt leaves no
trace here, unless somebody was sent a byte of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from service.errors import ServiceError
from service.live.held_replies import HeldPart

READ_BYTES = 256 * 1024
"""What is read at once, if the backend has not sent it in larger pieces: a small reply is one piece."""


class Head(NamedTuple):
    """Status and headers of Ollama's reply."""

    status: int
    headers: Mapping[str, str]


class Relay:
    """One reply on its way to those who wait for it.

    The attempt fills it and mostly ends it. The core ends it where no attempt does: its job is cancelled or expired, is
    not stored, or waits when the service stops. What ended it first stays. The core also fills one as a whole, from a
    reply that was stored for requests that are repeated.
    """

    __slots__ = (
        "_chunks",
        "_is_settled",
        "_opening",
        "_waiters",
        "failure",
        "has_told_error",
        "head",
        "held_bytes",
        "held_part",
        "is_abandoned",
        "is_ended",
        "is_kept",
        "is_sent",
        "is_worth_retrying",
        "readers",
        "size",
    )

    def __init__(self, *, is_kept: bool = False, readers: int = 1) -> None:
        self.head: Head | None = None
        """None until the backend answers; set again by the next attempt, while nobody was sent a byte."""
        self.size = 0
        """Bytes of the body so far, including those that were read and let go of."""
        self.is_ended = False
        self.failure: ServiceError | None = None
        """Why the reply is missing or broke off; None while it runs and when it is whole."""
        self.is_kept = is_kept
        """Never changes. True: what was read is kept for others, who may come later. False: there is one reader, and
        what it has read is let go of.
        """
        self.is_sent = False
        """Set by the answer to a caller, before it sends the first byte: the attempt that this came from is the last.
        """
        self.has_told_error = False
        """Set by the attempt: the reply itself ends with Ollama's own word of its failure."""
        self.is_worth_retrying = False
        """Set by the attempt, before it ends the reply with a refusal that we have not tried to overcome: a busy
        backend's, where callers do not wait for that.
        """
        self.readers = readers
        """How many callers read it, at first the one that it is made for. The core counts up when a repeated request
        joins, and each answer counts down when it is over.
        """
        self.is_abandoned = False
        """Set by the last answer when its caller has left, until the cancelled job ends the reply; taken back when the
        cancel cannot be stored.
        """
        self.held_bytes = 0
        """Bytes of the body that are held here."""
        self.held_part: HeldPart | None = None
        """What counts them among all replies, once there are many. Set by the attempt."""
        self._is_settled = False
        self._opening: tuple[Head, bytearray] | None = None
        self._chunks: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []

    def begin(self, head: Head) -> None:
        """Ollama answers."""
        self._opening = None
        self.head = head
        self._wake()

    def offer(self, head: Head, opening: bytearray) -> None:
        """Ollama has sent this beginning of a stream, which may still be a refusal's. The attempt holds it on."""
        self._opening = (head, opening)

    def open(self) -> bool:
        """Begin with what was offered, which is taken from the attempt: its caller can wait no longer for what follows.
        False: nothing was offered.
        """
        if self._opening is None:
            return False
        head, opening = self._opening
        data = bytes(opening)
        opening.clear()
        self.begin(head)
        self.append(data)
        return True

    def append(self, data: bytes) -> None:
        """More of the body. It is let go of where nobody reads it any more, and nobody can come."""
        self.size += len(data)
        if self.readers or (self.is_kept and not self._is_settled):
            self._chunks.append(data)
            self.held_bytes += len(data)
            self._wake()

    def reset(self) -> None:
        """The attempt failed and another will follow. Only to be called while nobody was sent a byte."""
        self.head = None
        self._opening = None
        self.has_told_error = False
        self._let_go()
        self.size = 0

    def end(self) -> None:
        """The reply is whole, or Ollama has ended it on purpose: its caller sees the end that Ollama made."""
        self.is_ended = True
        self._wake()

    def refuse(self, head: Head, body: bytes) -> None:
        """The reply is this refusal of Ollama's, and whole. A reply that has ended stays as it is."""
        if self.is_ended:
            return
        self.reset()
        self.head = head
        self.append(body)
        self.end()

    def fail(self, failure: ServiceError) -> None:
        """There will be no more of it. A reply that has ended stays as it is."""
        if not self.is_ended:
            self.failure = failure
            self.is_ended = True
            self._wake()

    def read(self, position: int) -> tuple[bytes, int]:
        """The next bytes from a position on (at first 0; b"" when there are none yet), and the position behind them."""
        chunks = self._chunks
        end = len(chunks) if self.held_bytes <= READ_BYTES else self._end_of_piece(position)
        data = chunks[position] if end == position + 1 else b"".join(chunks[position:end])
        if self.is_kept:
            return data, end
        del chunks[:end]
        self.held_bytes -= len(data)
        if self.held_part is not None:
            self.held_part.set(self.held_bytes)
        return data, 0

    def has_more(self, position: int) -> bool:
        """Whether there are bytes behind this position."""
        return position < len(self._chunks)

    def pieces(self) -> Iterator[bytes]:
        """All of a reply that is kept and has ended, in pieces of a bounded size."""
        position = 0
        while self.has_more(position):
            data, position = self.read(position)
            yield data

    def leave(self) -> None:
        """One of its readers has it whole, or is gone."""
        self.readers -= 1
        self._let_go_if_done()

    def settle(self) -> None:
        """Its job is final, and the reply stored for who repeats the request: no more readers will come."""
        self._is_settled = True
        self._let_go_if_done()

    async def changed(self) -> None:
        """Wait until something happens to it."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def poke(self) -> None:
        """Wake those who wait without news of the reply: a caller may be gone."""
        self._wake()

    def _end_of_piece(self, position: int) -> int:
        size = 0
        for index in range(position, len(self._chunks)):
            size += len(self._chunks[index])
            if size >= READ_BYTES:
                return index + 1
        return len(self._chunks)

    def _let_go_if_done(self) -> None:
        if self.readers <= 0 and (self._is_settled or not self.is_kept):
            self._let_go()

    def _let_go(self) -> None:
        self._chunks.clear()
        self.held_bytes = 0
        if self.held_part is not None:
            self.held_part.set(0)

    def _wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
