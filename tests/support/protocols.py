"""Reading a reply in a test."""

from __future__ import annotations

from service.backend.protocols import Ending, reader_for
from service.job import Segment, joined


def read(endpoint: str, *pieces: str | bytes, streamed: bool = True) -> tuple[list[Segment], Ending]:
    """All segments of a reply, in order, and how it ended."""
    reader = reader_for(endpoint, streamed=streamed)
    segments: list[Segment] = []
    for piece in pieces:
        segments += reader.feed(piece.encode() if isinstance(piece, str) else piece)
    ending = reader.finish()
    return joined([*segments, *ending.segments]), ending._replace(segments=())
