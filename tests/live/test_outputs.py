"""An output can be read from any offset, in stretches, and gives what was written from there on."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.job import TOOL_CALLS, Segment
from service.live.outputs import Output, Piece, Position, of_segments

# Longer than a block, and longer than what is read at once.
LONG = st.builds(lambda text, times: text * times, st.sampled_from("aä🎉"), st.sampled_from([3000, 5000, 40_000]))
SEGMENTS = st.builds(Segment, st.sampled_from(["text", "thinking", TOOL_CALLS]), st.text(max_size=8) | LONG)
WRITTEN = st.lists(st.lists(SEGMENTS, max_size=4), max_size=4)
MOST_AT_ONCE = 64 * 1024


def output_of(written: list[list[Segment]]) -> Output:
    output = Output(attempt=1, max_bytes=1000)
    for segments in written:
        output.append(segments)
    return output


def characters(segments: list[Segment] | list[Piece]) -> tuple[str, str]:
    """What stands there, and of which kind each character is."""
    return "".join(one.data for one in segments), "".join(one.kind[1] * len(one.data) for one in segments)


def all_from(output: Output, offset: int) -> list[Piece]:
    """Everything from an offset on, read as a follower does."""
    found: list[Piece] = []
    while pieces := output.read(offset):
        found += pieces
        assert sum(len(piece.data) for piece in pieces[:-1]) < MOST_AT_ONCE
        for piece in pieces:
            offset += len(piece.data)
            assert piece.data
            assert piece.end == offset
    assert offset >= output.length
    return found


@given(written=WRITTEN, share=st.floats(0, 1))
def test_from_any_offset_on_it_gives_what_was_written_behind_it(written: list[list[Segment]], share: float) -> None:
    output = output_of(written)
    text, kinds = characters([segment for segments in written for segment in segments])
    offset = round(share * len(text))
    assert output.length == len(text)
    assert characters(all_from(output, offset)) == (text[offset:], kinds[offset:])


@given(written=WRITTEN)
def test_what_is_read_while_it_grows_is_what_is_read_at_the_end(written: list[list[Segment]]) -> None:
    output = Output(attempt=1, max_bytes=1000)
    found: list[Piece] = []
    for segments in written:
        output.append(segments)
        found += all_from(output, found[-1].end if found else 0)
    assert characters(found) == characters(all_from(output, 0))


@given(written=WRITTEN)
def test_tool_calls_stay_apart_and_all_else_is_joined(written: list[list[Segment]]) -> None:
    flat = [segment for segments in written for segment in segments if segment.data]
    output = output_of(written)
    calls = [segment.data for segment in flat if segment.kind == TOOL_CALLS]
    assert [piece.data for piece in all_from(output, 0) if piece.kind == TOOL_CALLS] == calls
    joined = output.segments()
    assert [segment.data for segment in joined if segment.kind == TOOL_CALLS] == calls
    assert characters(list(joined)) == characters(flat)
    assert not any(one.kind == next_one.kind != TOOL_CALLS for one, next_one in pairwise(joined))
    assert of_segments(1, joined).segments() == joined


@given(written=WRITTEN, share=st.floats(0, 1))
def test_a_finished_output_is_read_like_a_running_one(written: list[list[Segment]], share: float) -> None:
    output = output_of(written)
    stored = of_segments(1, output.segments())
    offset = round(share * output.length)
    assert stored.is_closed
    assert stored.length == output.length
    assert characters(all_from(stored, offset)) == characters(all_from(output, offset))


@given(written=WRITTEN)
def test_its_size_is_counted_in_bytes(written: list[list[Segment]]) -> None:
    output = output_of(written)
    assert output.size == len(characters(all_from(output, 0))[0].encode())
    assert output.is_too_large == (output.size > 1000)


def test_everybody_who_follows_is_woken_each_time() -> None:
    output, woken = Output(attempt=1, max_bytes=1000), list[str]()
    output.wakers[lambda: woken.append("one")] = None
    output.wakers[lambda: woken.append("two")] = None
    output.append([Segment("text", "a"), Segment("text", "b")])
    output.close()
    assert woken == ["one", "two"] * 2


@given(attempt=st.integers(0, 10**9 - 1), offset=st.integers(0, 10**12 - 1))
def test_a_position_is_read_as_it_was_written(attempt: int, offset: int) -> None:
    assert Position.parse(str(Position(attempt, offset))) == Position(attempt, offset)


@given(text=st.text() | st.from_regex(r"[0-9٣²]*[.,][0-9٣²]*", fullmatch=True))
def test_any_other_text_is_no_position(text: str) -> None:
    found = Position.parse(text)
    assert found is None or [int(part) for part in text.split(".")] == [found.attempt, found.offset]
