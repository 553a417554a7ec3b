"""Replies that come as one JSON object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

from service.backend.protocols.reading import Ending, ReplyError, TooLargeError, error_of_last, parsed, too_large
from service.errors import InvalidRequestError
from service.job import Segment
from service.json_bounds import UNSCANNED_BYTES, BodyScan

LIMIT_BYTES = 256 * 1024 * 1024
"""The largest reply that is read."""


class WholeBody:
    """The pieces of a reply, up to the bounds on its bytes and on what it would hold once it is parsed. They are looked
    at as they come, and are the same objects as those that are relayed.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pieces: list[bytes] = []
        self._size = 0
        self._scan = BodyScan()
        self._scanned_pieces = 0
        self._excess: TooLargeError | None = None

    def add(self, data: bytes) -> None:
        if self._excess is not None:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._limit_bytes:
            self._excess = TooLargeError(f"the reply is longer than {self._limit_bytes} bytes")
        elif self._size > UNSCANNED_BYTES:
            try:
                for piece in self._pieces[self._scanned_pieces :]:
                    self._scan.read(piece)
            except InvalidRequestError as problem:
                self._excess = too_large(problem)
            self._scanned_pieces = len(self._pieces)
        if self._excess is not None:
            self._pieces.clear()

    def read(self, understand: Callable[[bytes], Ending]) -> Ending:
        """The ending of which the bytes tell, or why they do not."""
        if self._excess is not None:
            return Ending(is_complete=False, error=str(self._excess), is_too_large=True)
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        try:
            return understand(body)
        except ReplyError as problem:
            return Ending(is_complete=False, error=error_of_last(problem), error_status=problem.status)


class WholeReader:
    """Gathers the reply and reads it at its end: all its output is in ``finish().segments``."""

    has_begun = True
    has_opening = False
    numbers = 0
    gathered_bytes = 0

    def __init__(self, understand: Callable[[dict[str, Any]], Ending]) -> None:
        self._body = WholeBody()
        self._understand = understand

    def feed(self, data: bytes) -> list[Segment]:
        self._body.add(data)
        return []

    def finish(self) -> Ending:
        # What the body holds was counted while it came.
        return self._body.read(lambda body: self._understand(parsed(body, from_json)))
