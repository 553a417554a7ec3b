"""Of a reply with pictures only what stands around them is kept, however it is cut and written."""

from __future__ import annotations

import itertools
import json
import random
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.backend.protocols import reader_for
from tests.support.protocols import read

PATH = "/v1/images/generations"
PICTURE = b64encode(random.Random(1).randbytes(3000)).decode()
WORDS = "two\n" + "lines" * 90 + '\\ \u00e9 "x"'
REPLY = json.dumps(
    {
        "created": 1,
        "data": [{"b64_json": PICTURE, "revised_prompt": WORDS}, {"b64_json": PICTURE[:40]}],
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }
)
SPELLINGS = [REPLY.encode(), REPLY.replace("/", "\\/").encode()]


@pytest.mark.parametrize("whole", SPELLINGS, ids=["plain", "with slashes escaped"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bytes_may_be_cut_anywhere(whole: bytes, data: st.DataObject) -> None:
    ends = data.draw(st.lists(st.integers(0, len(whole)), max_size=30).map(sorted))
    pieces = [whole[start:end] for start, end in itertools.pairwise([0, *ends, len(whole)])]
    segments, ending = read(PATH, *pieces, streamed=False)
    assert (segments, ending.is_complete, ending.error) == ([], True, None)
    assert (ending.counts.prompt_tokens, ending.counts.completion_tokens) == (3, 4)


@pytest.mark.parametrize("slash", [b"/", b"\\/"])
def test_a_large_picture_is_not_held(slash: bytes) -> None:
    reader = reader_for(PATH, streamed=False)
    reader.feed(b'{"data":[{"b64_json":"')
    piece = b64encode(random.Random(2).randbytes(48 * 1024)).replace(b"/", slash)
    for _ in range(64):
        reader.feed(piece)
        assert reader.gathered_bytes < 64 * 1024
    reader.feed(b'"}]}')
    assert reader.finish().is_complete


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", None),
        (b'{"created":1,"data":null}', None),
        (b'{"created":1,"data":[]}', None),
        (b'{"created":1,"data":[{"b64_json":"' + b"A" * 3000, None),
        (b'{"created":1}', None),
        (b'{"error":{"message":"bad"}}', "bad"),
    ],
)
def test_one_without_a_picture_is_not_whole(reply: bytes, error: str | None) -> None:
    _, ending = read(PATH, reply, streamed=False)
    assert (ending.is_complete, ending.error) == (False, error)


def test_one_with_too_much_beside_its_pictures_is_too_large() -> None:
    _, ending = read(PATH, *(b"word " * 50_000 for _ in range(5)), streamed=False)
    assert ending.is_too_large
