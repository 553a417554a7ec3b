"""What a waiting caller is to be sent: Ollama's reply, byte for byte, as it comes.

The worker fills it and never waits; whoever answers the caller reads at the caller's pace. Until somebody was sent a
byte a failed attempt leaves no trace here, and the next one begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from service.errors import CorralError


class Head(NamedTuple):
    """Status and headers of Ollama's reply."""

    status: int
    headers: Mapping[str, str]


class Relay:
    """One reply on its way to those who wait for it."""

    __slots__ = ("_waiters", "chunks", "failure", "has_told_error", "head", "is_ended", "is_sent", "size")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.chunks: list[bytes] = []
        self.size = 0
        self.is_ended = False
        self.failure: CorralError | None = None
        """Why the reply is missing or broke off; None while it runs and when it is whole."""
        self.is_sent = False
        """Somebody was sent a byte: the attempt that it came from is the last."""
        self.has_told_error = False
        """The reply itself ends with Ollama's own word of its failure."""
        self._waiters: list[asyncio.Future[None]] = []

    def begin(self, head: Head) -> None:
        """Ollama answers."""
        self.head = head
        self._wake()

    def append(self, data: bytes) -> None:
        """More of the body."""
        self.chunks.append(data)
        self.size += len(data)
        self._wake()

    def reset(self) -> None:
        """The attempt failed and another will follow; only before anything was sent."""
        self.head = None
        self.chunks.clear()
        self.size = 0

    def end(self) -> None:
        """The reply is whole."""
        self.is_ended = True
        self._wake()

    def fail(self, failure: CorralError) -> None:
        """There will be no more of it. A reply that has ended stays as it is."""
        if not self.is_ended:
            self.failure = failure
            self.is_ended = True
            self._wake()

    async def changed(self) -> None:
        """Wait until something happens to it."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def poke(self) -> None:
        """Have who waits look around: its caller may be gone."""
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
