"""How much a JSON body, of a request or a reply, may hold, found before it is parsed.

A parser makes objects of 50 to 100 bytes for each ``[]`` of two bytes, and holds the interpreter while it does. Strings
are as large in memory as they were on the way, so this scan passes over them: 0.3 ms for each MB of an image.
"""

from __future__ import annotations

import asyncio

from service.errors import InvalidRequestError

UNSCANNED_BYTES = 64 * 1024
"""A body up to this size is parsed at once, since it cannot hold more than as many values."""
MOST_LEVELS = 100
"""Of nesting; fewer than Python's recursion, Ollama's decoder or a database can take."""
MOST_VALUES = 1_000_000
MOST_CONTAINERS = 100_000
"""Arrays and objects, which are among the values."""
MOST_DIGITS = 1_000
"""In a row. The time for an integer grows with the square of its digits, and nobody takes one of more than 63 bits."""

_PIECE_BYTES = 64 * 1024
_WORK_A_TURN = 64 * 1024
"""Strings and containers that are looked at before others have their turn: a few milliseconds."""
_BYTES_OF_ONE = 16
"""So many bytes of a body take about as long as one of its strings."""

_SPACE = b" \t\n\r"
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONLY_DIGITS = bytes(ord("1") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_LONG_NUMBER = b"1" * (MOST_DIGITS + 1)


async def check_bounds(body: bytes) -> None:
    """Refuse a body that holds too much to be parsed; others have their turn in between.

    What comes after the first thing that is not JSON may be read wrongly: the parser stops there. Raises
    InvalidRequestError.
    """
    if len(body) <= UNSCANNED_BYTES:
        return
    scan, work = BodyScan(), 0
    for start in range(0, len(body), _PIECE_BYTES):
        work += scan.read(body[start : start + _PIECE_BYTES])
        if work >= _WORK_A_TURN:
            work = 0
            await asyncio.sleep(0)


def check_at_once(body: bytes) -> None:
    """The same where nobody can have a turn in between: for what is at most a few megabytes."""
    if len(body) > UNSCANNED_BYTES:
        scan = BodyScan()
        for start in range(0, len(body), _PIECE_BYTES):
            scan.read(body[start : start + _PIECE_BYTES])


class BodyScan:
    """What the pieces of a body hold, which may be cut anywhere. bytes' own methods do nearly all of it."""

    def __init__(self) -> None:
        self.values = 0
        """Without the body itself."""
        self.containers = 0
        self.level = 0
        self._is_in_string = False
        self._held = b""
        """Half of an escape."""
        self._last = b""
        """The last byte that is outside of strings and no space: an array or object may be empty."""

    def read(self, piece: bytes) -> int:
        """Add a piece; gives the work that it took. Raises InvalidRequestError when the body holds too much."""
        size, piece = len(piece), self._held + piece
        if b"\\" in piece:
            self._held = b"\\" * ((len(piece) - len(piece.rstrip(b"\\"))) % 2)
            piece = piece[: len(piece) - len(self._held)].replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        if self._is_in_string and len(parts) == 1:
            return 1 + size // _BYTES_OF_ONE
        # Each second part is the inside of a string, of which only the quotes are kept.
        outside = b'"'.join(parts[self._is_in_string :: 2])
        if self._is_in_string:
            outside = b'"' + outside
        if len(parts) % 2 == 0:
            self._is_in_string = not self._is_in_string
        return size // _BYTES_OF_ONE + len(parts) + self._count(outside)

    def _count(self, outside: bytes) -> int:
        """Count what stands outside of strings; gives the number of its brackets."""
        if _LONG_NUMBER in outside.translate(_ONLY_DIGITS):
            raise InvalidRequestError(f"the body holds a number of more than {MOST_DIGITS:,} digits")
        tight = self._last + outside.translate(None, _SPACE)
        brackets = tight.translate(None, _NO_BRACKETS)
        brackets = brackets[len(self._last.translate(None, _NO_BRACKETS)) :]
        opened = brackets.count(b"[") + brackets.count(b"{")
        self.containers += opened
        # A value is the first of its container, or follows a comma. ``_last`` is counted already.
        self.values += tight.count(b",", len(self._last)) + opened - tight.count(b"[]") - tight.count(b"{}")
        self._last = tight[-1:]
        if self.containers > MOST_CONTAINERS:
            raise InvalidRequestError(f"the body holds more than {MOST_CONTAINERS:,} arrays and objects")
        if self.values - (self._last in (b"[", b"{")) > MOST_VALUES:
            raise InvalidRequestError(f"the body holds more than {MOST_VALUES:,} values")
        self._nest(brackets, opened)
        return len(brackets)

    def _nest(self, brackets: bytes, opened: int) -> None:
        if self.level + opened <= MOST_LEVELS:
            self.level += 2 * opened - len(brackets)
            return
        for bracket in brackets:
            self.level += 1 if bracket in b"[{" else -1
            if self.level > MOST_LEVELS:
                raise InvalidRequestError(f"the body is nested more than {MOST_LEVELS} levels deep")
