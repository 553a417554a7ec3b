"""Bodies that are small to send and large to hold are refused before they are parsed, and nobody waits for that."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.live.websocket.messages import read_message
from service.errors import InvalidRequestError
from service.json_bounds import (
    MOST_CONTAINERS,
    MOST_DIGITS,
    MOST_LEVELS,
    MOST_VALUES,
    UNSCANNED_BYTES,
    BodyScan,
    check_bounds,
)
from tests.support.access import ADMIN, DOORS, service_with_keys

LARGE = 4 << 20
TEXT = st.one_of(st.text(), st.text('\\"[]{},: \n1', max_size=20), st.text("\\", max_size=9))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


def counted(value: Any, level: int = 0) -> tuple[int, int, int]:
    """The values in a value, the arrays and objects among them and itself, and the levels."""
    if not isinstance(value, list | dict):
        return 0, 0, level
    inside = list(value.values()) if isinstance(value, dict) else value
    counts = [counted(one, level + 1) for one in inside]
    return (
        len(inside) + sum(count[0] for count in counts),
        1 + sum(count[1] for count in counts),
        max((count[2] for count in counts), default=level + 1),
    )


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


@given(VALUES, st.booleans(), st.sampled_from([None, 0, 3]), st.lists(st.integers(min_value=0)))
def test_values_and_containers_are_counted_as_a_parser_finds_them_wherever_the_pieces_are_cut(
    value: Any, is_ascii: bool, indent: int | None, places: list[int]
) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode("utf-8", "replace")
    scan = BodyScan()
    for piece in cut(body, places):
        scan.read(piece)
    values, containers, _ = counted(value)
    assert (scan.values, scan.containers, scan.level) == (values, containers, 0)


@given(st.binary(), st.lists(st.integers(min_value=0)))
def test_what_is_no_json_is_read_to_its_end(body: bytes, places: list[int]) -> None:
    scan = BodyScan()
    for piece in cut(body, places):
        scan.read(piece)


@given(st.integers(min_value=MOST_LEVELS - 2, max_value=MOST_LEVELS + 2), st.lists(st.integers(min_value=0)), st.data())
def test_nesting_is_refused_from_the_first_level_too_many(levels: int, places: list[int], data: st.DataObject) -> None:
    value: Any = 1
    for _ in range(levels):
        beside = data.draw(st.sampled_from([0, [], {}, "[[[", "\\"]))
        value = [beside, value, beside] if data.draw(st.booleans()) else {"[{": beside, "a": value}
    is_too_deep = counted(value)[2] > MOST_LEVELS
    scan = BodyScan()
    with pytest.raises(InvalidRequestError, match="levels deep") if is_too_deep else nullcontext():
        for piece in cut(json.dumps(value).encode(), places):
            scan.read(piece)


def array(one: bytes, times: int) -> bytes:
    return b"[" + one + (b"," + one) * (times - 1) + b"]"


@pytest.mark.parametrize(
    "body",
    [
        b'{"context":' + array(b"123456", 131_072) + b"}",
        array(b"1", MOST_VALUES),
        array(b'"ab"', MOST_VALUES),
        array(b"[]", MOST_CONTAINERS - 1),
        array(b"[1,{}]", (MOST_CONTAINERS - 1) // 2),
        b"[" * MOST_LEVELS + b"]" * MOST_LEVELS + b" " * UNSCANNED_BYTES,
        array(b"1" * MOST_DIGITS, 100),
        b'{"images":["' + b"iVBORw0KGgo/" * (LARGE // 12) + b'"]}',
        b'{"prompt":"' + b'\\"[{\\\\' * (LARGE // 7) + b'"}',
        b'{"prompt":"' + b"1" * LARGE + b'"}',
    ],
)
async def test_what_callers_really_send_passes(body: bytes) -> None:
    assert len(body) > UNSCANNED_BYTES
    json.loads(body)
    await check_bounds(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (array(b"1", MOST_VALUES + 1), "more than 1,000,000 values"),
        (array(b'""', MOST_VALUES + 1), "more than 1,000,000 values"),
        (b"{" + array(b'"":0', MOST_VALUES + 1)[1:-1] + b"}", "more than 1,000,000 values"),
        (array(b"[]", MOST_CONTAINERS), "more than 100,000 arrays and objects"),
        (array(b"{}", MOST_CONTAINERS), "more than 100,000 arrays and objects"),
        (b"[" * (MOST_LEVELS + 1) + b" " * UNSCANNED_BYTES, "nested more than 100 levels deep"),
        (b'{"a":' * (MOST_LEVELS + 1) + b" " * UNSCANNED_BYTES, "nested more than 100 levels deep"),
        (b"[" * LARGE, "nested more than 100 levels deep"),
        (array(b"1" * (MOST_DIGITS + 1), 100), "a number of more than 1,000 digits"),
        (b'["' + b"x" * LARGE + b'",' + array(b"[]", MOST_CONTAINERS)[1:], "arrays and objects"),
        (b'["' + b"\\\\" * LARGE + b'",' + array(b"[]", MOST_CONTAINERS)[1:], "arrays and objects"),
    ],
)
async def test_more_than_that_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        await check_bounds(body)


@pytest.mark.parametrize(
    "body",
    [b'"' * LARGE, b'["' + b"\\" * LARGE, b"]" * LARGE, b'["' + b'\\"' * LARGE, b'"x"' * (LARGE // 3), b":" * LARGE],
    ids=["quotes", "backslashes", "closing brackets", "escaped quotes", "strings", "colons"],
)
async def test_others_have_their_turn_while_a_body_that_is_no_json_is_read(body: bytes) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(other())
    await check_bounds(body)
    beside.cancel()
    assert turns >= (LARGE >> 20) - 1


async def test_the_pieces_of_a_body_of_random_bytes_are_all_read() -> None:
    await check_bounds(random.Random(18).randbytes(LARGE).replace(b"[", b"").replace(b"{", b""))


async def test_a_body_that_holds_too_much_is_400_in_the_shape_of_its_route_and_reaches_no_backend() -> None:
    more = array(b"[]", MOST_CONTAINERS) + b"}"
    async with service_with_keys() as service:
        for path, body, where in DOORS:
            data = json.dumps(body).encode()[:-1] + b',"tools":' + more
            async with service.session.post(path, data=data, headers=ADMIN) as response:
                message = await response.json(content_type=None)
            for name in where:
                message = message[name]
            assert (response.status, "more than 100,000 arrays and objects" in message) == (400, True), path
        for path in ("/api/keys", "/api/show"):
            async with service.session.post(path, data=b'{"models":' + more, headers=ADMIN) as response:
                assert (response.status, "arrays and objects" in await response.text()) == (400, True), path
        assert list(service.ollama.observations.seen) == []


def test_a_message_on_the_websocket_that_holds_too_much_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidRequestError, match="more than 100,000 arrays and objects"):
        read_message('{"type":"auth","key":' + array(b"[]", MOST_CONTAINERS).decode() + "}")
