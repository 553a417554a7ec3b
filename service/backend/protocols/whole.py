"""Replies that come as one JSON object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.backend.protocols.reading import Ending, ReplyError, error_of_last, parsed
from service.job import Segment

LIMIT_BYTES = 256 * 1024 * 1024
"""The largest reply that is read: vectors for a large document fill tens of megabytes."""


class WholeBody:
    """The bytes of a reply, up to the bound."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = bytearray()
        self.is_too_long = False

    def add(self, data: bytes) -> None:
        if self.is_too_long:
            return
        self._bytes += data
        if len(self._bytes) > self._limit_bytes:
            self.is_too_long = True
            self._bytes = bytearray()

    def read(self, understand: Callable[[bytes], Ending]) -> Ending:
        """The ending of which the bytes tell, or why they do not."""
        if self.is_too_long:
            return Ending(is_complete=False, error=f"the reply is longer than {self._limit_bytes} bytes")
        body = bytes(self._bytes)
        try:
            return understand(body)
        except ReplyError as problem:
            return Ending(is_complete=False, error=error_of_last(problem), error_status=problem.status)


class WholeReader:
    """Gathers the reply and reads it at its end: all its output is in ``finish().segments``."""

    has_begun = True

    def __init__(self, understand: Callable[[dict[str, Any]], Ending]) -> None:
        self._body = WholeBody()
        self._understand = understand

    def feed(self, data: bytes) -> list[Segment]:
        self._body.add(data)
        return []

    def finish(self) -> Ending:
        return self._body.read(lambda body: self._understand(parsed(body)))
