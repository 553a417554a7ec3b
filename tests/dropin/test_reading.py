"""A body that is taken means to Ollama's decoder what it means to us."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.api.dropin.reading import is_name, read_call
from service.errors import InvalidRequestError
from service.go_json import fold

FIELDS = ("model", "prompt", "messages", "stream", "keep_alive", "options", "input")
KELVIN, LONG_S = "\u212a", "\u017f"


def as_ollama(body: bytes) -> dict[str, Any]:
    """What Go's decoder makes of the first JSON value in a body, by its own rules and nothing of ours: the last of
    equal names counts, null changes nothing, and of an object in an object the members are put together.
    """
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    pairs, _ = json.JSONDecoder(object_pairs_hook=Members).raw_decode(text)
    found: dict[str, Any] = {}
    for name, value in pairs if isinstance(pairs, Members) else ():
        field = name.lower().replace(LONG_S, "s").replace(KELVIN, "k")
        if field not in FIELDS or value is None:
            continue
        if field == "options" and isinstance(value, Members):
            held = found.setdefault(field, {})
            held.update(value)
        else:
            found[field] = value
    return found


class Members(list[tuple[str, Any]]):
    """An object, with each of its members."""


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """The name of a field, in any spelling, as it may stand in a body."""
    letters = []
    for letter in draw(st.sampled_from([*FIELDS, "num_ctx", "role", "content", "own"])):
        others = {"k": [KELVIN], "s": [LONG_S]}.get(letter, [])
        letter = draw(st.sampled_from([letter, letter, letter, letter, letter.upper(), *others]))
        letters.append(draw(st.sampled_from([letter, letter, letter, f"\\u{ord(letter):04x}"])))
    return f'"{"".join(letters)}"'


SCALARS = st.sampled_from(
    ["null", "true", "0", "-1", "1e2", '"x"', '"tiny1"', '""', "[]", '"\\ud800"', str(2**63), "9" * 30]
)


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(spellings(), values), max_size=4).map(
        lambda members: "{" + ",".join(f"{name}:{value}" for name, value in members) + "}"
    )


VALUES = st.recursive(
    SCALARS,
    lambda inner: objects(inner) | st.lists(inner, max_size=3).map(lambda some: "[" + ",".join(some) + "]"),
    max_leaves=5,
)
BODIES = st.builds(
    lambda body, after: (body + after).encode("utf-8", "surrogatepass"),
    objects(VALUES),
    st.sampled_from(["", "", "", " \n", " x", "{}"]),
)


@given(body=BODIES)
@example(body=b'{"model":"a","Model":null}')
@example(body=b'{"options":{"num_ctx":1},"option\\u017f":{}}')
@example(body=b'{"model":"a"} {"model":"b"}')
def test_what_is_taken_means_the_same_to_ollama(body: bytes) -> None:
    try:
        ours = read_call(body)
    except InvalidRequestError:
        return
    theirs = as_ollama(body)
    for field in FIELDS:
        assert same(ours.get(field), theirs.get(field)), field
    assert json.loads(body.decode("utf-8", "replace")) is not None


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, Members):
        theirs = dict(theirs)
    if isinstance(theirs, dict):
        return isinstance(ours, dict) and ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


@pytest.mark.parametrize(
    ("one", "other"),
    [("K", KELVIN), ("s", LONG_S), ("É", "é"), ("\u03a3", "\u03c2"), ("\u00b5", "\u039c"), ("ß", "\u1e9e")],
)
def test_what_go_takes_for_one_letter_is_one(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"), [("ß", "ss"), ("\u0130", "i"), ("\u0131", "i"), ("\ufb01", "fi"), ("_", "-"), ("a", "ä")]
)
def test_what_go_takes_for_two_stays_two(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@pytest.mark.parametrize(
    ("name", "is_right"),
    [("a", True), ("x" * 600, True), ("x" * 601, False), ("", False), ("ä", False), ("a\0", False)],
)
def test_a_name_that_no_model_can_have_is_known(name: str, is_right: bool) -> None:
    assert is_name(name) is is_right
