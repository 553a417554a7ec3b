"""``/api/embed``, ``/api/embeddings`` and ``/v1/embeddings`` (wire contract 1.4, 1.5, 1.7).

A reply may hold millions of numbers. They are counted while it comes and never parsed; only what stands around the
vectors is kept and read.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, NamedTuple

from service.backend.protocols.reading import (
    Ending,
    ReplyError,
    TooLargeError,
    count,
    error_of_last,
    mapping,
    milliseconds,
    parsed,
)
from service.job import Counts, Segment

_MOST_AROUND_BYTES = 1024 * 1024
"""Of what stands before the vectors."""
_EDGE_BYTES = 4 * 1024
"""In so much of the vectors it shows how they are written, and where they end."""
_LONGEST_OPENING = 256
"""In bytes; with white space as far as anybody writes it."""
_ENCODED = re.compile(rb'"embedding"\s*:\s*"')


class VectorLayout(NamedTuple):
    """Where a reply has its vectors, and how to count them without reading millions of numbers."""

    key: str
    opening: re.Pattern[bytes]
    closing: re.Pattern[bytes]
    mark: bytes
    """One byte that occurs once for each vector behind the first; empty: there is one vector."""
    own_commas: int = 0
    """How many commas each vector has beside those between numbers, and between vectors."""


_EMBED = VectorLayout("embeddings", re.compile(rb'"embeddings"\s*:\s*\[\s*\['), re.compile(rb"\]\s*\]"), b"[")
_LEGACY = VectorLayout("embedding", re.compile(rb'"embedding"\s*:\s*\[(?!\s*\])'), re.compile(rb"\]"), b"")
_OPENAI = VectorLayout("data", re.compile(rb'"data"\s*:\s*\[\s*\{'), re.compile(rb"\}\s*\]"), b"{", 2)


class EmbeddingsReader:
    """Counts the vectors and their numbers, and reads the rest. A reply is complete that has vectors, or the empty list
    of a load.
    """

    has_begun = True
    has_opening = False
    gathered_bytes = 0

    def __init__(self, layout: VectorLayout) -> None:
        self._layout = layout
        self._before = bytearray()
        self._last = b""
        """The end of what has come, once the vectors have begun."""
        self._first = b""
        self._is_inside = False
        self._size = 0
        """Bytes of the vectors and of what is behind them."""
        self._commas = 0
        self._marks = 0
        self._excess: TooLargeError | None = None

    @property
    def numbers(self) -> int:
        """How many numbers have come. Those of vectors in base64 are told by their length: four bytes each."""
        if not self._is_inside:
            return 0
        if _ENCODED.search(self._first) is not None:
            return self._size * 3 // 16
        return self._commas + 1 - self._layout.own_commas * (1 + self._marks)

    def feed(self, data: bytes) -> list[Segment]:
        if self._is_inside:
            self._count(data)
        elif self._excess is None:
            self._look_for_vectors(data)
        return []

    def finish(self) -> Ending:
        if self._excess is not None:
            return Ending(is_complete=False, error=str(self._excess), is_too_large=True)
        try:
            return self._read_around() if self._is_inside else self._read(bytes(self._before), None)
        except ReplyError as problem:
            return Ending(is_complete=False, error=error_of_last(problem), error_status=problem.status)

    def _look_for_vectors(self, data: bytes) -> None:
        before = self._before
        known = len(before)
        before += data
        found = self._layout.opening.search(before, max(0, known - _LONGEST_OPENING))
        if found is not None:
            rest = bytes(before[found.end() :])
            del before[found.start() :]
            self._is_inside = True
            self._count(rest)
        elif len(before) > _MOST_AROUND_BYTES:
            before.clear()
            self._excess = TooLargeError(f"the reply has no vectors in its first {_MOST_AROUND_BYTES} bytes")

    def _count(self, data: bytes) -> None:
        layout = self._layout
        self._size += len(data)
        self._commas += data.count(b",")
        if layout.mark:
            self._marks += data.count(layout.mark)
        if len(self._first) < _EDGE_BYTES:
            self._first += data[: _EDGE_BYTES - len(self._first)]
        self._last = data[-_EDGE_BYTES:] if len(data) >= _EDGE_BYTES else (self._last + data)[-_EDGE_BYTES:]

    def _read_around(self) -> Ending:
        closings = [found.end() for found in self._layout.closing.finditer(self._last)]
        if not closings:
            return Ending(is_complete=False)
        after = self._last[closings[-1] :]
        vectors = 1 + self._marks - (after.count(self._layout.mark) if self._layout.mark else 0)
        return self._read(bytes(self._before) + f'"{self._layout.key}":[]'.encode() + after, vectors)

    def _read(self, document: bytes, vectors: int | None) -> Ending:
        """Read the reply; ``vectors`` are those that were taken out of it, None where they are still in it."""
        reply = parsed(document)
        left = reply.get(self._layout.key)
        if not isinstance(left, list):
            return Ending(is_complete=False)
        if vectors is None:
            vectors = len(left) if self._layout.mark else int(bool(left))
        return Ending(is_complete=True, counts=_counts(reply), embeddings=vectors)


def _counts(reply: dict[str, Any]) -> Counts:
    prompt_tokens = reply.get("prompt_eval_count")
    if prompt_tokens is None:
        prompt_tokens = mapping(reply.get("usage")).get("prompt_tokens")
    return Counts(prompt_tokens=count(prompt_tokens), load_ms=milliseconds(reply.get("load_duration")))


whole_embed = partial(EmbeddingsReader, _EMBED)
whole_legacy = partial(EmbeddingsReader, _LEGACY)
whole_openai = partial(EmbeddingsReader, _OPENAI)
