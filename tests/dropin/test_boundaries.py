"""Wherever a stream is cut into pieces, what is passed on ends at the last boundary that has come."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.api.dropin.boundaries import Boundaries

PIECES = st.lists(st.lists(st.sampled_from([b"\n", b"\r", b"\n\n", b"\r\n\r\n", b'{"a":1}', b"\xf0"])).map(b"".join))
ENDS = {False: (b"\n",), True: (b"\n\n", b"\r\n\r\n")}


@given(pieces=PIECES, is_event_stream=st.booleans())
def test_what_is_passed_on_ends_at_a_boundary_and_what_is_held_back_has_none(
    pieces: list[bytes], is_event_stream: bool
) -> None:
    boundaries = Boundaries(is_event_stream=is_event_stream)
    came = passed = b""
    for piece in pieces:
        came += piece
        whole = boundaries.whole(piece)
        passed += whole
        assert not whole or whole.endswith(ENDS[is_event_stream])
        assert not any(end in boundaries.rest() for end in ENDS[is_event_stream])
        assert passed + boundaries.rest() == came


@given(lines=st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line)), cuts=st.lists(st.integers(0, 99)))
def test_lines_that_are_cut_anywhere_come_out_whole(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    boundaries = Boundaries(is_event_stream=False)
    passed = [boundaries.whole(data[start:end]) for start, end in pairwise(places)]
    assert all(not piece or piece.endswith(b"\n") for piece in passed)
    assert (b"".join(passed), boundaries.rest()) == (data, b"")
