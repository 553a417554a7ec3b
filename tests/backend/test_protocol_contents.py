"""What readers find in replies of every kind, and what they bear."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backend.protocols import Ending, reader_for
from service.backend.protocols.lines import LineSplitter
from service.backend.protocols.whole import WholeBody
from service.job import Counts, Segment
from tests.support.protocols import read

DONE = '{"model":"m","response":"","done":true,"done_reason":"stop"}\n'
CHAT_CHUNK = (
    'data: {"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"x"},"finish_reason":null}]}\n\n'
)


def test_thinking_and_tool_calls_of_responses_are_found() -> None:
    call = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}"}
    events: list[dict[str, Any]] = [
        {"type": "response.reasoning_summary_text.delta", "delta": "hm"},
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.function_call_arguments.delta", "delta": "{}"},
        {"type": "response.output_item.done", "item": call},
        {"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}},
    ]
    expected = [
        Segment("thinking", "hm"),
        Segment("text", "a"),
        Segment("tool_calls", json.dumps([call]).replace(" ", "")),
    ]
    segments, ending = read("/v1/responses", *(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events))
    assert (segments, ending.counts.completion_tokens) == (expected, 2)
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "a"}]},
        call,
    ]
    whole = {"status": "completed", "output": output, "usage": {"output_tokens": 2, "total_tokens": 3}}
    assert read("/v1/responses", json.dumps(whole), streamed=False)[0] == expected


def test_thinking_and_tool_calls_of_messages_are_found() -> None:
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    events: list[dict[str, Any]] = [
        {"type": "content_block_start", "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_stop"},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
        {"type": "content_block_start", "content_block": block | {"input": {}}},
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "1}"}},
        {"type": "content_block_stop"},
        {"type": "message_stop"},
    ]
    expected = [
        Segment("thinking", "hm"),
        Segment("text", "a"),
        Segment("tool_calls", json.dumps([block]).replace(" ", "")),
    ]
    segments, ending = read("/v1/messages", *(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events))
    assert (segments, ending.is_complete) == (expected, True)
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, block]
    whole = {"type": "message", "content": content, "stop_reason": "tool_use", "usage": {"output_tokens": 2}}
    segments, ending = read("/v1/messages", json.dumps(whole), streamed=False)
    assert (segments, ending.is_complete) == (expected, True)


def test_tool_calls_stay_arrays_of_their_own() -> None:
    line = '{"message":{"role":"assistant","content":"","tool_calls":[{"id":"1"}]}}\n'
    assert read("/api/chat", line * 2)[0] == [Segment("tool_calls", '[{"id":"1"}]')] * 2


def test_durations_become_milliseconds_and_nonsense_becomes_nothing() -> None:
    last: dict[str, Any] = {
        "done": True,
        "load_duration": 1_499_999,
        "eval_duration": 1_500_000,
        "eval_count": 2**70,
        "done_reason": 7,
    }
    last |= {"prompt_eval_count": "9", "prompt_eval_duration": -1}
    assert read("/api/generate", json.dumps(last))[1].counts == Counts(load_ms=1, generation_ms=2)


def test_vectors_are_counted_however_the_json_is_written() -> None:
    vectors = [[0.5, -1e-9]] * 3
    data = [{"object": "embedding", "embedding": vector, "index": 0} for vector in vectors]
    encoded = [{"object": "embedding", "embedding": "AAAA", "index": 0}] * 3
    for separators in ((",", ":"), (", ", ": ")):
        for endpoint, reply, expected in (
            ("/api/embed", {"embeddings": vectors, "prompt_eval_count": 4}, 3),
            ("/api/embeddings", {"embedding": vectors[0]}, 1),
            ("/v1/embeddings", {"data": data, "usage": {"prompt_tokens": 4}}, 3),
            ("/v1/embeddings", {"data": encoded}, 3),
            ("/api/embed", {"embeddings": []}, 0),
            ("/api/embeddings", {"embedding": []}, 0),
        ):
            body = json.dumps(reply, separators=separators)
            assert read(endpoint, body, streamed=False)[1].embeddings == expected
            assert read(endpoint, body[:-1], streamed=False)[1] == Ending(False)


def test_a_line_of_two_megabytes_in_thousands_of_pieces_is_read() -> None:
    text = "x" * 2_000_000
    line = json.dumps({"response": text, "done": True}).encode()
    pieces = [line[start : start + 500] for start in range(0, len(line), 500)]
    assert read("/api/generate", *pieces)[0] == [Segment("text", text)]


class CountingBytes(bytes):
    """Counts how many bytes are looked at for a line end."""

    searched = 0

    def split(self, *arguments: Any) -> list[bytes]:
        CountingBytes.searched += len(self)
        return super().split(*arguments)


def test_an_unfinished_line_is_not_searched_again() -> None:
    CountingBytes.searched = 0
    lines = LineSplitter()
    for _ in range(1000):
        assert lines.split(CountingBytes(b"x" * 100)) == []
    assert lines.split(b"\n") == [b"x" * 100_000]
    assert CountingBytes.searched == 100_000


@given(st.lists(st.integers(1, 12), max_size=20))
def test_a_line_beyond_the_bound_ends_the_reading(sizes: list[int]) -> None:
    text = b"12345678\n123456789\n12\n"
    pieces = [text[start:end] for start, end in itertools.pairwise([0, *itertools.accumulate(sizes)])]
    lines = LineSplitter(limit_bytes=8)
    found = [line for piece in [*pieces, text[sum(sizes) :]] for line in lines.split(piece)]
    assert (found, lines.is_too_long, lines.rest()) == ([b"12345678"], True, b"")


def test_a_reply_beyond_the_bound_is_an_error() -> None:
    body = WholeBody(limit_bytes=10)
    body.add(b"x" * 11)
    body.add(b"x")
    ending = body.read(lambda _: Ending(True))
    assert (ending.is_complete, ending.error) == (False, "the reply is longer than 10 bytes")


def test_an_unknown_endpoint_has_no_reader() -> None:
    with pytest.raises(KeyError):
        reader_for("/api/pull", streamed=True)
