"""What running jobs have written so far: append-only logs that any number of followers read at their own pace.

The attempt appends and never waits for a reader. A position in an output is an offset in characters (Unicode code
points, counted over all kinds); a follower that comes back reads from its position.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from service.job import TOOL_CALLS, Segment, joined
from service.live.held_replies import HeldPart

_BLOCK_CHARACTERS = 4096
_READ_CHARACTERS = 64 * 1024


class Piece(NamedTuple):
    """A stretch of an output; ``end`` is the offset behind its last character."""

    end: int
    kind: str
    data: str


class Position(NamedTuple):
    """How far a follower has read: in which attempt, up to which offset."""

    attempt: int
    offset: int

    def __str__(self) -> str:
        return f"{self.attempt}.{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """The position that was written as ``attempt.offset``; None when the text is none."""
        attempt, dot, offset = text.strip().partition(".")
        if not dot or not (attempt.isascii() and attempt.isdigit() and offset.isascii() and offset.isdigit()):
            return None
        if len(attempt) > 9 or len(offset) > 12:
            return None
        return cls(int(attempt), int(offset))


class Output:
    """The log of one attempt."""

    __slots__ = ("_starts", "attempt", "blocks", "held_part", "is_closed", "length", "max_bytes", "size", "wakers")

    def __init__(self, attempt: int, max_bytes: int) -> None:
        self.attempt = attempt
        self.max_bytes = max_bytes
        self.size = 0
        self.length = 0
        self.held_part: HeldPart | None = None
        """What counts it among all replies, once it is large, until nobody reads it any more. Set by the attempt."""
        self.is_closed = False
        self.blocks: list[Segment] = []
        self._starts: list[int] = []
        self.wakers: dict[Callable[[], None], None] = {}

    @property
    def is_too_large(self) -> bool:
        return self.size > self.max_bytes

    def append(self, segments: Iterable[Segment]) -> None:
        """Add what came and wake the followers. Text grows in blocks, so that not every token is kept as an object."""
        for kind, data in segments:
            if not data:
                continue
            last = self.blocks[-1] if self.blocks else None
            if (
                last is not None
                and last.kind == kind
                and kind != TOOL_CALLS
                and len(last.data) + len(data) <= _BLOCK_CHARACTERS
            ):
                self.blocks[-1] = Segment(kind, last.data + data)
            else:
                self.blocks.append(Segment(kind, data))
                self._starts.append(self.length)
            self.length += len(data)
            self.size += len(data) if data.isascii() else len(data.encode())
        self._wake()

    def close(self) -> None:
        """Nothing more will come."""
        self.is_closed = True
        self._wake()

    def read(self, offset: int) -> list[Piece]:
        """What stands from ``offset`` on, a bounded stretch of it; nothing at the end."""
        if offset >= self.length:
            return []
        pieces: list[Piece] = []
        taken = 0
        index = bisect_right(self._starts, offset) - 1
        while index < len(self.blocks) and taken < _READ_CHARACTERS:
            start, (kind, data) = self._starts[index], self.blocks[index]
            data = data[max(0, offset - start) :]
            end = start + len(self.blocks[index].data)
            if pieces and pieces[-1].kind == kind and kind != TOOL_CALLS:
                pieces[-1] = Piece(end, kind, pieces[-1].data + data)
            else:
                pieces.append(Piece(end, kind, data))
            taken += len(data)
            index += 1
        return pieces

    def segments(self) -> tuple[Segment, ...]:
        """The whole output, neighbours of one kind joined."""
        return tuple(joined(self.blocks))

    def _wake(self) -> None:
        for wake in tuple(self.wakers):
            wake()


def of_segments(attempt: int, segments: Sequence[Segment]) -> Output:
    """A finished output, to be read like a running one."""
    output = Output(attempt, max_bytes=0)
    output.blocks = list(segments)
    for segment in segments:
        output._starts.append(output.length)
        output.length += len(segment.data)
    output.is_closed = True
    return output
