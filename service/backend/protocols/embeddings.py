"""``/api/embed``, ``/api/embeddings`` and ``/v1/embeddings`` (wire contract 1.4, 1.5, 1.7)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from service.backend.protocols.reading import Ending, count, mapping, milliseconds, parsed
from service.backend.protocols.whole import WholeBody
from service.job import Counts, Segment


class VectorLayout(NamedTuple):
    """Where a reply has its vectors, and how to count them without reading millions of numbers."""

    key: str
    opening: bytes
    closing: bytes
    mark: bytes
    """Occurs once for each vector between opening and closing; empty: there is one vector."""
    marks_before: int
    """How many vectors there are without any mark."""


_EMBED = VectorLayout("embeddings", b'"embeddings":[[', b"]]", b"],[", 1)
_LEGACY = VectorLayout("embedding", b'"embedding":[', b"]", b"", 1)
_OPENAI = VectorLayout("data", b'"data":[{', b"}]", b'"object":"embedding"', 0)


class EmbeddingsReader:
    """Counts the vectors and reads the rest. A reply is complete that has vectors, or the empty list of a load."""

    has_begun = True

    def __init__(self, layout: VectorLayout) -> None:
        self._layout = layout
        self._body = WholeBody()

    def feed(self, data: bytes) -> list[Segment]:
        self._body.add(data)
        return []

    def finish(self) -> Ending:
        return self._body.read(self._read)

    def _read(self, body: bytes) -> Ending:
        document, vectors = self._without_vectors(body)
        reply = parsed(document)
        left = reply.get(self._layout.key)
        if not isinstance(left, list):
            return Ending(is_complete=False)
        if vectors is None:
            vectors = len(left) if self._layout.mark else int(bool(left))
        return Ending(is_complete=True, counts=_counts(reply), embeddings=vectors)

    def _without_vectors(self, body: bytes) -> tuple[bytes, int | None]:
        """The reply with its vectors taken out, and their number; None where they were not found and are left in."""
        layout = self._layout
        start = body.find(layout.opening)
        end = body.rfind(layout.closing)
        inside = start + len(layout.opening)
        if start < 0 or end <= inside:
            return body, None
        vectors = layout.marks_before + (body.count(layout.mark, inside, end) if layout.mark else 0)
        document = body[:start] + f'"{layout.key}":[]'.encode() + body[end + len(layout.closing) :]
        return document, vectors


def _counts(reply: dict[str, Any]) -> Counts:
    prompt_tokens = reply.get("prompt_eval_count")
    if prompt_tokens is None:
        prompt_tokens = mapping(reply.get("usage")).get("prompt_tokens")
    return Counts(prompt_tokens=count(prompt_tokens), load_ms=milliseconds(reply.get("load_duration")))


whole_embed = partial(EmbeddingsReader, _EMBED)
whole_legacy = partial(EmbeddingsReader, _LEGACY)
whole_openai = partial(EmbeddingsReader, _OPENAI)
