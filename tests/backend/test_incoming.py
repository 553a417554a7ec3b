"""A reply reads the same however its bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backend.http.incoming import IncomingReply, NotHttpError

HEAD = b"HTTP/1.1 200 OK\r\nX-One: 1\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
SIZED = HEAD + b"Content-Length: 5\r\n\r\nabcde"
INTERIM = b"HTTP/1.1 100 Continue\r\nX-One: 0\r\n\r\n"
UNSIZED = HEAD + b"\r\nabcde"


def read(data: bytes, cuts: list[int], *, is_head_only: bool = False) -> IncomingReply:
    reply = IncomingReply()
    reply.is_head_only = is_head_only
    reply.open()
    for start, end in pairwise([0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]):
        reply.feed(data[start:end])
    return reply


@given(st.sampled_from([CHUNKED, SIZED, INTERIM + CHUNKED, INTERIM + SIZED]), st.lists(st.integers(0, 150), max_size=8))
def test_cuts_change_nothing(data: bytes, cuts: list[int]) -> None:
    reply = read(data, cuts)
    assert (reply.status, b"".join(reply.pieces)) == (200, b"abcde")
    assert reply.headers is not None
    assert reply.headers.getall("X-One") == ["1"]
    assert (reply.has_head, reply.is_whole, reply.keeps_alive) == (True, True, True)


@given(st.lists(st.integers(0, 150), max_size=8))
def test_a_body_without_an_end_of_its_own_ends_with_the_connection(cuts: list[int]) -> None:
    reply = read(UNSIZED, cuts)
    assert not reply.is_whole
    reply.end()
    assert (b"".join(reply.pieces), reply.is_whole, reply.keeps_alive) == (b"abcde", True, False)


@given(st.integers(1, len(CHUNKED) - 1))
def test_a_reply_that_is_cut_off_is_not_whole(length: int) -> None:
    reply = read(CHUNKED[:length], [])
    reply.end()
    assert not reply.is_whole


def test_what_follows_a_reply_is_left_out() -> None:
    reply = read(SIZED + SIZED, [])
    assert (b"".join(reply.pieces), reply.is_whole, reply.keeps_alive) == (b"abcde", True, False)


def test_the_reply_to_head_has_no_body() -> None:
    reply = read(SIZED, [], is_head_only=True)
    assert (reply.pieces, reply.is_whole, reply.keeps_alive) == ([], True, False)


def test_what_is_no_reply_is_told() -> None:
    for data in (b"SSH-2.0-OpenSSH_9.9\r\n", HEAD + b"X: \0\r\n\r\n"):
        with pytest.raises(NotHttpError):
            read(data, [])
