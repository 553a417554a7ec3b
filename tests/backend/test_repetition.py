"""Which streams without their marker are those that Ollama has ended for a token that repeats itself."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.protocols import read

NATIVE = ("/api/generate", "/api/chat")
PATHS = (*NATIVE, "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
THE = " the"


def event(path: str, text: str = "", thinking: str = "", *, model: str = "m", **more: Any) -> bytes:
    """One event of a stream, with what Ollama sends at most in one."""
    body: dict[str, Any] = {"model": model, **more}
    thought = {"thinking": thinking} if thinking else {}
    match path:
        case "/api/generate":
            body |= {"created_at": "t", "response": text, **thought, "done": False}
        case "/api/chat":
            message = {"role": "assistant", "content": text, **thought, **body.pop("message", {})}
            body |= {"created_at": "t", "message": message, "done": False}
        case "/v1/chat/completions":
            delta = {"content": text, **({"reasoning": thinking} if thinking else {}), **body.pop("delta", {})}
            body |= {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        case "/v1/completions":
            body |= {"choices": [{"index": 0, "text": text, "finish_reason": None}]}
        case "/v1/responses":
            kind = "response.reasoning_summary_text.delta" if thinking else "response.output_text.delta"
            body = {"type": kind, "delta": thinking or text}
        case "/v1/messages":
            delta = {"type": "thinking_delta", **thought} if thinking else {"type": "text_delta", "text": text}
            body = {"type": "content_block_delta", "index": 0, "delta": delta}
    line = json.dumps(body).encode()
    return line + b"\n" if path in NATIVE else b"data: " + line + b"\n\n"


def is_repeated(path: str, *events: bytes) -> bool:
    """Whether the stream is one that Ollama has ended, in whatever pieces it comes."""
    found = {
        read(path, *pieces)[1].is_repeated for pieces in (events, [b"".join(events)], [events[0], b"".join(events[1:])])
    }
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize("path", PATHS)
def test_thirty_one_equal_events_at_the_end_are_and_thirty_are_not(path: str) -> None:
    begun, the = event(path, "Once"), event(path, THE)
    assert not is_repeated(path, begun, *[the] * 30)
    assert is_repeated(path, begun, *[the] * 31)
    assert is_repeated(path, *[the] * 31)
    assert is_repeated(path, *[begun] * 40, *[the] * 31)
    assert not is_repeated(path, *[the] * 31, begun)


@pytest.mark.parametrize("path", PATHS)
def test_blank_ones_are_after_thirty_where_they_are_all(path: str) -> None:
    blanks = [event(path, "\n"), event(path, " ")] * 15
    assert is_repeated(path, *blanks)
    assert not is_repeated(path, *blanks[1:])
    assert not is_repeated(path, event(path, "Once"), *blanks)
    assert is_repeated(path, event(path, "Once"), *blanks, event(path, "\t"))
    assert not is_repeated(path, *[event(path, "x")] * 30)


@pytest.mark.parametrize("path", PATHS)
def test_events_without_output_are_none_of_them_and_space_around_a_text_does_not_count(path: str) -> None:
    texts = ["the", " the", "the\n", ""]
    events = [event(path, texts[number % 4]) for number in range(41)]
    assert is_repeated(path, event(path, "Once"), *events)
    assert not is_repeated(path, event(path, "Once"), *events[:-1])


@pytest.mark.parametrize("path", PATHS)
def test_fewer_pieces_that_hold_the_same_tokens_are_not(path: str) -> None:
    assert not is_repeated(path, event(path, "Once"), *[event(path, THE * 2)] * 30)
    assert not is_repeated(path, event(path, THE * 99))


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/v1/completions"])
def test_thoughts_are_too_but_not_together_with_text(path: str) -> None:
    thought = event(path, thinking=THE)
    assert is_repeated(path, *[thought] * 31)
    assert not is_repeated(path, *[thought] * 15, *[event(path, THE)] * 16)


@pytest.mark.parametrize("path", [*NATIVE, "/v1/chat/completions"])
def test_an_event_of_two_kinds_is_equal_to_none(path: str) -> None:
    both, the = event(path, THE, thinking=THE), event(path, THE)
    assert not is_repeated(path, *[both] * 31)
    assert not is_repeated(path, both, *[the] * 30)
    assert not is_repeated(path, *[the] * 31, both)
    assert is_repeated(path, both, *[the] * 31)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/api/chat", {"message": {"tool_calls": [{"function": {"name": "f"}}]}}),
        ("/api/generate", {"tool_calls": [{"function": {"name": "f"}}]}),
        ("/v1/chat/completions", {"delta": {"tool_calls": [{"id": "1"}]}}),
    ],
)
def test_tool_calls_are_not(path: str, more: dict[str, Any]) -> None:
    call, the = event(path, **more), event(path, THE)
    assert not is_repeated(path, *[call] * 31)
    assert not is_repeated(path, *[the] * 31, call)
    assert not is_repeated(path, event(path, THE, **more), *[the] * 30)
    assert is_repeated(path, call, *[the] * 31)


LAST = {
    "/api/generate": b'{"model":"m","response":"","done":true}\n',
    "/api/chat": b'{"model":"m","message":{"role":"assistant","content":""},"done":true}\n',
    "/v1/chat/completions": b"data: [DONE]\n\n",
    "/v1/completions": b"data: [DONE]\n\n",
    "/v1/responses": b'data: {"type":"response.completed","response":{}}\n\n',
    "/v1/messages": b'data: {"type":"message_stop"}\n\n',
}


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_with_its_marker_an_error_or_a_cut_end_is_not(path: str) -> None:
    the = event(path, THE)
    error = b'{"error":"bad"}\n' if path in NATIVE else b'data: {"error":{"message":"bad"}}\n\n'
    assert read(path, *[the] * 40, LAST[path])[1].is_complete
    for end in (LAST[path], error, the[:-9]):
        assert not is_repeated(path, *[the] * 40, end)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_stream_whose_last_chunk_names_no_model_is_not(path: str) -> None:
    assert not is_repeated(path, *[event(path, THE)] * 40, event(path, model=""))


def test_a_whole_reply_is_never() -> None:
    whole = json.dumps({"model": "m", "response": THE * 40, "done": False})
    assert not read("/api/generate", whole, streamed=False)[1].is_repeated


@example(["a"] + [""] * 99 + [" the"] * 31, [1])
@example(["", *["\n"] * 30, ""], [])
@given(
    st.lists(st.tuples(st.sampled_from(["", " ", "a", " a", "b"]), st.integers(1, 33))).map(
        lambda runs: [text for text, times in runs for _ in range(times)]
    ),
    st.lists(st.integers(0, 200), max_size=20),
)
@settings(deadline=None)
def test_however_lines_come_together_it_is_found_by_the_last_of_them(texts: list[str], cuts: list[int]) -> None:
    given_out = [text for text in texts if text]
    last = {text.strip() for text in given_out[-31:]}
    expected = len(last) == 1 and (len(given_out) >= 31 or (len(given_out) == 30 and last == {""}))
    lines = [event("/api/chat", text) for text in texts]
    places = [0, *sorted(min(cut, len(lines)) for cut in cuts), len(lines)]
    pieces = [b"".join(lines[start:end]) for start, end in itertools.pairwise(places)]
    assert read("/api/chat", *pieces)[1].is_repeated == expected
