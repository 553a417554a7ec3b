"""Bodies of drop-in calls as nobody should write them: names in odd cases and more than once, values of wrong types,
bytes that are no JSON.
"""

from __future__ import annotations

import json

from hypothesis import strategies as st

_CALL = ("model", "stream", "keep_alive", "options")
FIELDS: dict[str, tuple[str, ...]] = {
    "/api/generate": (*_CALL, "prompt", "format", "think", "images", "raw"),
    "/api/chat": (*_CALL, "messages", "format", "think", "tools"),
    "/api/embed": (*_CALL, "input", "truncate", "dimensions"),
    "/api/embeddings": (*_CALL, "prompt"),
    "/api/show": ("model", "name", "options", "verbose"),
    "/v1/chat/completions": ("model", "stream", "messages", "max_tokens", "stop"),
    "/v1/completions": ("model", "stream", "prompt", "max_tokens"),
    "/v1/embeddings": ("model", "input", "dimensions"),
    "/v1/responses": ("model", "stream", "input", "max_output_tokens"),
    "/v1/images/generations": ("model", "prompt", "seed"),
    "/v1/images/edits": ("model", "prompt", "image"),
    "/v1/systemone": ("model", "state", "questions", "keep_alive"),
    "/v1/messages": ("model", "stream", "messages", "max_tokens", "system"),
}
"""The fields of each path's requests that matter here."""

_ALIKE = {"s": "\u017f", "k": "\u212a"}
"""What Go's decoder takes for the same letter, beside its upper case."""
_ANYTHING = [
    "null",
    "true",
    "false",
    "0",
    "5",
    "-1",
    "1.5",
    '""',
    '"x"',
    "[]",
    "{}",
    "[null]",
    '{"a":1,"a":2}',
    "9" * 307,
]
_VALUES: dict[str, list[str]] = {
    "model": ['"m"', '"forbidden"', '"m"', '"\\ud800"', '"\\u212a"', '"m\\u0000"', "null", '""'],
    "name": ['"m"', '"other"', "null"],
    "stream": ["true", "false", "null", '"yes"'],
    "keep_alive": [
        *(
            "0",
            "-1",
            "0.0",
            "-0",
            "1e3",
            "1e300",
            "0.4",
            "1e-30",
            "null",
            "null",
            "60",
            '"0"',
            '"5m"',
            '"0.4ns"',
            '"-0.4ns"',
            '"-1s"',
            '"5"',
            '""',
        ),
        *('"1h2m3.5s"', '"+3m"', '".5s"', '"1.s"', '"1m1m"', '"0h"', '"5 m"', '"1µs"', '"1\\u03bcs"', '"-0"'),
    ],
    "prompt": ['"x"', '""', "null"],
    "input": ['"x"', '""', "null", "[]", '["x"]', '[{"role":"user","content":"x"}]'],
    "format": ["null", '""', '"json"', "{}"],
    "think": ["null", "true", '"low"'],
    "images": ["null", "[]", '["aGk="]', '["x"]'],
    "tools": ["null", "[]", "[{}]"],
    "raw": ["true", "false", "null"],
    "role": ['"user"', "null"],
    "content": ['"x"', '""', "null", '[{"type":"text","text":"x"}]'],
    "thinking": ['"x"', "null"],
    "max_tokens": ["5", "null", "1.0", "1e2"],
}
_OPTION_NAMES = ["num_predict", "num_ctx", "stop", "Num_Predict", "NUM_CTX", "num_predict\u017f", "x"]
_ODD_BYTES = [
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xe2\x82",
    b"\xef\xbb\xbf",
    b" ",
    b"}",
    b"{",
    b'"',
    b"\\",
    b",",
    b"x",
    b"\x01",
]


def _spellings(name: str) -> st.SearchStrategy[str]:
    """A name as JSON; mostly as it is written, else with other letters that may be taken for the same."""
    odd = "".join(_ALIKE.get(letter, letter) for letter in name)
    others = [json.dumps(name.upper()), json.dumps(name.title()), json.dumps(odd, ensure_ascii=False), json.dumps(odd)]
    return st.sampled_from([json.dumps(name)] * 8 + others)


def _members(names: tuple[str, ...], most: int) -> st.SearchStrategy[str]:
    """An object with some of these names, which may come more than once."""

    @st.composite
    def member(draw: st.DrawFn) -> str:
        name = draw(st.sampled_from(names))
        return f"{draw(_spellings(name))}:{draw(_value(name))}"

    # Mostly each name once, as bodies are that go further than to be refused for that.
    unique = st.lists(member(), max_size=most, unique_by=lambda text: text.partition(":")[0].lower())
    either = st.integers(0, 3).flatmap(lambda chance: unique if chance else st.lists(member(), max_size=most))
    return either.map(lambda members: "{" + ",".join(members) + "}")


def _value(name: str) -> st.SearchStrategy[str]:
    match name:
        case "options":
            numbers = st.sampled_from(["5", "7", "null", "1e400", '["a"]', "1" * 20])
            pairs = st.tuples(st.sampled_from(_OPTION_NAMES).map(json.dumps), numbers).map(":".join)
            usual = st.lists(pairs, max_size=3).map(lambda members: "{" + ",".join(members) + "}")
        case "messages":
            usual = st.lists(_message, max_size=2).map(lambda messages: "[" + ",".join(messages) + "]")
        case _:
            usual = st.sampled_from(_VALUES.get(name, _ANYTHING))
    # One in twelve is of any type.
    return st.integers(0, 11).flatmap(lambda chance: usual if chance else st.sampled_from(_ANYTHING))


_message = st.deferred(lambda: _members(("role", "content", "images", "thinking"), 4))


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path and a body for it. Mostly an object, sometimes with bytes in it or behind it that do not belong there."""
    path = draw(st.sampled_from(sorted(FIELDS)))
    body = draw(_members((*FIELDS[path], "unknown"), 7)).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 2)))):
        place = draw(st.integers(0, len(body)))
        body = body[:place] + draw(st.sampled_from(_ODD_BYTES)) + body[place + draw(st.integers(0, 1)) :]
    return path, body
