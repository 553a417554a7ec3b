"""Texts that are read in pieces: whatever the cuts, they are what was stored, and nobody reads more than a piece."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import StoreError
from service.job import TEXT, THINKING, TOOL_CALLS, Outcome, Segment, Status, joined
from service.store.database import Database, LongText
from service.store.jobs import JobStore
from service.store.long_texts import PIECE_BYTES, SegmentsScan
from service.store.texts import segments_text
from tests.support.store_jobs import NOW, claimed, stored

SEGMENTS = st.lists(st.builds(Segment, st.sampled_from((TEXT, THINKING)), st.text(min_size=1, max_size=30)), max_size=6)
AWKWARD = st.text(alphabet=st.sampled_from('\\"u\ud83d\ude00d8é\N{GRINNING FACE}\n'), min_size=1, max_size=20)


def pieces_of(text: str, sizes: list[int]) -> list[str]:
    """The text, cut after so many characters again and again."""
    found, place = [], 0
    for size in sizes:
        found.append(text[place : place + size])
        place += size
    return [*found, text[place:]]


@given(
    segments=SEGMENTS | st.lists(st.builds(Segment, st.just(TEXT), AWKWARD), max_size=4),
    sizes=st.lists(st.integers(0, 9), max_size=40),
)
def test_segments_are_read_whatever_the_cuts(segments: list[Segment], sizes: list[int]) -> None:
    scan = SegmentsScan()
    found = [piece for text in pieces_of(segments_text(segments), sizes) for piece in scan.read(text)]
    # Two halves of a character that stand side by side are one, wherever they are written as JSON.
    expected = joined(Segment(*pair) for pair in json.loads(segments_text(segments)))
    assert joined(Segment(piece.kind, piece.data) for piece in found if piece.raw) == expected
    assert sum(piece.is_last for piece in found) == len(segments)


async def test_a_long_text_is_read_in_pieces(store: JobStore) -> None:
    prompt = "aé\N{GRINNING FACE}" * 200_000
    job = await stored(store, prompt)
    text = await store.queries.prompt(job.seq)
    assert text is not None
    assert not text.is_short
    assert text.size == len(prompt.encode())
    pieces = [piece async for piece in text.pieces()]
    assert max(map(len, pieces)) == PIECE_BYTES
    assert b"".join(pieces).decode() == prompt
    assert await text.whole() == prompt


async def test_a_long_result_is_read_in_pieces(store: JobStore) -> None:
    job = await claimed(store)
    calls = json.dumps([{"function": {"name": "f", "arguments": {"a": "b" * 300_000}}}])
    segments = (Segment(THINKING, "hm\n" * 100_000), Segment(TEXT, '"é\\' * 200_000), Segment(TOOL_CALLS, calls))
    await store.finish(job, Outcome(Status.COMPLETED, segments), NOW + 5)
    result = await store.queries.result(job.seq)
    assert result is not None
    assert not result.is_short
    pieces = [piece async for piece in result.pieces()]
    assert tuple(joined(Segment(piece.kind, piece.data) for piece in pieces)) == segments
    assert max(len(piece.raw) for piece in pieces if piece.kind != TOOL_CALLS) <= PIECE_BYTES
    assert (await result.whole()).segments == segments


async def test_a_text_that_is_deleted_meanwhile_breaks_off(store: JobStore) -> None:
    job = await claimed(store)
    await store.finish(job, Outcome(Status.COMPLETED, (Segment(TEXT, "a" * 1_000_000),)), NOW + 5)
    result = await store.queries.result(job.seq)
    assert result is not None
    await store.prune(NOW + 10)
    with pytest.raises(StoreError, match="kept no longer"):
        [piece async for piece in result.pieces()]
    assert await store.queries.result(job.seq) is None


async def test_a_piece_is_told_with_the_size_of_the_whole(database: Database, store: JobStore) -> None:
    job = await stored(store, "héllo")
    text = LongText("bodies", "prompt", job.seq)
    assert await database.piece(text, 0, 3) == (b"h\xc3\xa9", 6)
    assert await database.piece(text, 3, 100) == (b"llo", 6)
    assert await database.piece(text, 6, 100) == (b"", 6)
    assert await database.piece(text._replace(seq=job.seq + 1), 0, 3) is None
