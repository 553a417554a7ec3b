"""What the readers of Ollama's replies find, however the bytes are cut."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.backend.protocols import Ending
from service.endpoints import ENDPOINTS
from service.job import Counts, Segment
from tests.support.protocols import read

RECORDINGS = Path(__file__).parent.parent / "recordings"

DONE = '{"model":"m","response":"","done":true,"done_reason":"stop"}\n'
CHAT_CHUNK = (
    'data: {"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"x"},"finish_reason":null}]}\n\n'
)


def recorded_replies() -> list[Any]:
    cases = []
    for path in sorted(RECORDINGS.glob("*.json")):
        exchange = json.loads(path.read_text())
        request, response = exchange["request"], exchange["response"]
        if request["path"] in ENDPOINTS and response["status"] == 200:
            streamed = request["body"].get("stream", request["path"].startswith("/api/"))
            # A note stands where chunks were left out of a recording.
            chunks = [chunk for chunk in response["chunks"] if not chunk.startswith("... ")]
            cases.append(pytest.param(path.stem, request["path"], streamed, chunks, id=path.stem))
    return cases


REPLIES = recorded_replies()
CUT = {
    "fault-runner-killed-chat": "an error was encountered while running the model: unexpected EOF",
    "fault-runner-killed-generate": "an error was encountered while running the model: unexpected EOF",
    "fault-runner-killed-v1-chat": None,
    "fault-runner-killed-v1-messages": None,
    "fault-runner-killed-v1-responses": None,
    "fault-server-killed-chat": None,
}
WORDS = {"chat": "Q7 sky,8Th rain", "generate": "1dzThX8b", "completions": "1dzThX8b"}


UNRECORDED = {"/v1/audio/transcriptions", "/v1/images/edits", "/v1/images/generations", "/v1/systemone"}
"""They need models that were too large, or too new, for the machine of the recordings."""


def test_there_are_recordings_of_every_endpoint_that_could_be_recorded() -> None:
    assert {case.values[1] for case in REPLIES} == set(ENDPOINTS) - UNRECORDED


@pytest.mark.parametrize(("name", "endpoint", "streamed", "chunks"), REPLIES)
def test_a_recorded_reply_is_complete_unless_it_was_cut(
    name: str, endpoint: str, streamed: bool, chunks: list[str]
) -> None:
    segments, ending = read(endpoint, *chunks, streamed=streamed)
    assert ending.is_complete == (name not in CUT)
    assert ending.error == CUT.get(name)
    assert {segment.kind for segment in segments} <= {"text"}
    assert len(segments) <= 1


@pytest.mark.parametrize(("name", "endpoint", "streamed", "chunks"), REPLIES)
def test_the_words_and_counts_of_a_recorded_reply_are_found(
    name: str, endpoint: str, streamed: bool, chunks: list[str]
) -> None:
    segments, ending = read(endpoint, *chunks, streamed=streamed)
    if "embed" in name:
        assert ending.embeddings == (1 if name in {"embed-one", "embeddings"} else 2)
        assert ending.counts.prompt_tokens == {"embed-one": 9, "embeddings": None}.get(name, 18)
    elif name.endswith(("-load", "-unload", "-no-messages")):
        assert (segments, ending.counts.done_reason) == ([], "unload" if name.endswith("unload") else "load")
    elif name not in CUT:
        short = "generate" if endpoint == "/api/generate" else endpoint.rsplit("/", 1)[-1]
        expected = WORDS["generate"] if short == "generate" or endpoint == "/v1/completions" else WORDS["chat"]
        assert segments == [Segment("text", expected)]
        is_counted = not streamed or endpoint not in {"/v1/chat/completions", "/v1/completions"} or "usage" in name
        assert (ending.counts.completion_tokens == 8) == is_counted


@pytest.mark.parametrize(("name", "endpoint", "streamed", "chunks"), REPLIES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_bytes_may_be_cut_anywhere(
    name: str, endpoint: str, streamed: bool, chunks: list[str], data: st.DataObject
) -> None:
    whole = "".join(chunks).encode()
    ends = data.draw(st.lists(st.integers(0, len(whole)), max_size=30).map(sorted))
    pieces = [whole[start:end] for start, end in itertools.pairwise([0, *ends, len(whole)])]
    assert read(endpoint, *pieces, streamed=streamed) == read(endpoint, whole, streamed=streamed)


MIXED = [
    (
        "/api/chat",
        '{"message":{"role":"assistant","content":"","thinking":"hm é"},"done":false}\r\n'
        '\r\n{"message":{"role":"assistant","content":"日本 🎉"},"done":false}\r\n'
        '{"message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"ü","arguments":{}}}]},"done":false}\n'
        '{"message":{"role":"assistant","content":"."},"done":true,"done_reason":"stop","eval_duration":1500000}\n',
        [
            ("thinking", "hm é"),
            ("text", "日本 🎉"),
            ("tool_calls", '[{"function":{"name":"ü","arguments":{}}}]'),
            ("text", "."),
        ],
    ),
    (
        "/v1/chat/completions",
        ': waiting\r\n\r\ndata: {"model":"m","choices":[{"delta":{"role":"assistant","reasoning":"hm é"}}]}\r\n\r\n'
        'data: {"model":"m","choices":[{"delta":{"content":"日本 🎉"}}]}\r\n\r\n'
        'data: {"model":"m",\r\n'
        'data: "choices":[{"delta":{"tool_calls":[{"id":"ü"}]},"finish_reason":"tool_calls"}]}\r\n\r\n'
        "data: [DONE]\r\n\r\n",
        [("thinking", "hm é"), ("text", "日本 🎉"), ("tool_calls", '[{"id":"ü"}]')],
    ),
]


@pytest.mark.parametrize(("endpoint", "reply", "expected"), MIXED)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_characters_and_line_ends_may_be_cut_in_the_middle(
    endpoint: str, reply: str, expected: list[tuple[str, str]], data: st.DataObject
) -> None:
    whole = reply.encode()
    ends = data.draw(st.lists(st.integers(0, len(whole)), max_size=60).map(sorted))
    pieces = [whole[start:end] for start, end in itertools.pairwise([0, *ends, len(whole)])]
    segments, ending = read(endpoint, *pieces)
    assert segments == [Segment(*pair) for pair in expected]
    assert ending.is_complete


@given(garbage=st.binary(max_size=200), endpoint=st.sampled_from(sorted(ENDPOINTS)), streamed=st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_a_reader_fail(garbage: bytes, endpoint: str, streamed: bool) -> None:
    _, ending = read(endpoint, garbage, streamed=streamed)
    # The one thing that is no garbage and short enough to be made by chance.
    assert not ending.is_complete or b"[DONE]" in garbage


FIELDS = [
    *("error", "message", "model", "response", "thinking", "tool_calls", "done", "eval_count"),
    *("choices", "delta", "content", "finish_reason", "usage", "type", "item", "summary", "status", "output"),
    *("content_block", "data", "embedding", "embeddings"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(document=JSON, endpoint=st.sampled_from(sorted(ENDPOINTS)), streamed=st.booleans())
@settings(max_examples=400, deadline=None)
def test_no_json_makes_a_reader_fail(document: object, endpoint: str, streamed: bool) -> None:
    line = json.dumps(document)
    segments, _ = read(endpoint, f"data: {line}\n\n" if streamed and "/v1" in endpoint else line, streamed=streamed)
    assert all(isinstance(segment.data, str) for segment in segments)


def test_a_blank_line_is_no_error_and_garbage_is() -> None:
    _, ending = read("/api/generate", "\n \n", DONE, "\r\n")
    assert ending.is_complete
    segments, ending = read("/api/generate", '{"response":"a","done":false}\n<html>\n', DONE)
    assert segments == [Segment("text", "a")]
    assert not ending.is_complete
    assert ending.error == "what should be a JSON object reads: <html>"
    assert read("/v1/chat/completions", CHAT_CHUNK, "<html>\n", "data: [DONE]\n\n")[1].error is not None


def test_a_last_line_that_is_cut_is_no_error_but_not_complete() -> None:
    for tail in (DONE[:-2], DONE[:5], '{"error":"an err'):
        assert read("/api/generate", '{"response":"a","done":false}\n', tail) == ([Segment("text", "a")], Ending(False))
    assert read("/v1/chat/completions", CHAT_CHUNK, "data: [DON") == ([Segment("text", "x")], Ending(False))
    assert read("/api/generate", "<html>")[1].error is not None


def test_a_last_line_without_its_end_counts() -> None:
    segments, ending = read("/api/generate", '{"response":"a","done":true}')
    assert (segments, ending.is_complete) == ([Segment("text", "a")], True)
    assert read("/v1/chat/completions", CHAT_CHUNK, "data: [DONE]")[1].is_complete
    assert read("/api/generate", '{"error":"bad"}')[1].error == "bad"


def test_a_stream_without_its_marker_is_not_complete() -> None:
    finish = '{"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    usage = '{"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}'
    assert not read("/api/generate", '{"response":"a","done":false}\n')[1].is_complete
    assert not read("/v1/chat/completions", CHAT_CHUNK, f"data: {finish}\n\n")[1].is_complete
    assert not read("/v1/chat/completions", CHAT_CHUNK, f"data: {finish}\n\ndata: {usage}\n\n")[1].is_complete
    _, ending = read("/v1/chat/completions", CHAT_CHUNK, f"data: {finish}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
    assert ending == Ending(True, counts=Counts(prompt_tokens=2, completion_tokens=3, done_reason="stop"))


def test_an_error_that_was_swallowed_is_not_complete_even_if_a_marker_follows() -> None:
    swallowed = 'data: {"model":"","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}\n\n'
    assert not read("/v1/chat/completions", CHAT_CHUNK, swallowed)[1].is_complete
    assert not read("/v1/chat/completions", CHAT_CHUNK, swallowed, "data: [DONE]\n\n")[1].is_complete


def test_the_zeros_of_include_usage_are_not_counts() -> None:
    zeros = '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'
    text = f'data: {{"model":"m","choices":[{{"text":"a","finish_reason":"stop"}}],{zeros}}}\n\n'
    last = 'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}\n\n'
    assert read("/v1/completions", text)[1].counts == Counts(done_reason="stop")
    assert read("/v1/completions", text, last, "data: [DONE]\n\n")[1].counts.completion_tokens == 3


@pytest.mark.parametrize(
    ("endpoint", "reply", "is_complete"),
    [
        ("/api/generate", {"response": "a", "done": False}, False),
        ("/api/generate", {"response": "a"}, False),
        ("/api/generate", {"response": "a", "done": True}, True),
        ("/api/generate", {"response": "", "done": False, "_debug_info": {"rendered_template": "x"}}, True),
        ("/api/chat", {"message": {"content": "a"}, "done": False}, False),
        ("/api/chat", {"message": {"content": ""}, "done": True, "done_reason": "unload"}, True),
        (
            "/v1/chat/completions",
            {"choices": [{"message": {"content": "a"}, "finish_reason": None}], "usage": {}},
            False,
        ),
        ("/v1/chat/completions", {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}, True),
        (
            "/v1/chat/completions",
            {"choices": [{"message": {"content": "a"}, "finish_reason": None}], "usage": {"total_tokens": 3}},
            True,
        ),
        ("/v1/chat/completions", {"choices": [{"message": {"tool_calls": []}, "finish_reason": "tool_calls"}]}, False),
        ("/v1/completions", {"choices": [{"text": "a", "finish_reason": None}], "usage": {"total_tokens": 0}}, False),
        ("/v1/completions", {"choices": [{"text": "", "finish_reason": "load"}]}, True),
        (
            "/v1/responses",
            {
                "status": "completed",
                "output": [{"type": "message", "content": [{"text": "a"}]}],
                "usage": {"total_tokens": 0},
            },
            False,
        ),
        ("/v1/responses", {"status": "completed", "output": [], "usage": {"total_tokens": 0}}, True),
        ("/v1/messages", {"type": "message", "content": [{"type": "text", "text": "a"}], "usage": {}}, False),
        ("/v1/messages", {"type": "message", "content": [], "stop_reason": "end_turn", "usage": {}}, True),
        ("/v1/messages", {"type": "message", "content": [], "stop_reason": "tool_use", "usage": {}}, False),
        ("/api/embed", {"model": "m", "embeddings": []}, True),
        ("/api/embed", {"model": "m"}, False),
        ("/api/embeddings", {"embedding": []}, True),
        ("/v1/embeddings", {"object": "list", "data": []}, True),
        ("/v1/embeddings", {"object": "list", "data": None}, False),
    ],
)
def test_a_whole_reply_is_complete_only_when_it_says_so(endpoint: str, reply: object, is_complete: bool) -> None:
    _, ending = read(endpoint, json.dumps(reply), streamed=False)
    assert (ending.is_complete, ending.error) == (is_complete, None)


@pytest.mark.parametrize("endpoint", sorted(ENDPOINTS))
def test_an_error_under_status_200_is_reported_in_every_shape(endpoint: str) -> None:
    for error in ("bad", {"message": "bad", "type": "api_error"}, '{"error":{"code":400,"message":"bad"}}'):
        assert read(endpoint, json.dumps({"error": error}), streamed=False) == ([], Ending(False, error="bad"))
        line = json.dumps({"type": "error", "error": error})
        streamed = f"event: error\ndata: {line}\n\n" if endpoint.startswith("/v1") else f"{line}\n"
        if ENDPOINTS[endpoint].streamed_reader is not None:
            assert read(endpoint, streamed) == ([], Ending(False, error="bad"))
            assert read(endpoint, f"{line}\n") == ([], Ending(False, error="bad"))


def test_output_before_an_error_is_kept_and_nothing_after_it() -> None:
    segments, ending = read("/api/generate", '{"response":"a"}\n{"error":"bad"}\n{"response":"b"}\n', DONE)
    assert (segments, ending) == ([Segment("text", "a")], Ending(False, error="bad"))


def test_a_failed_response_says_why() -> None:
    failed = {"type": "response.failed", "response": {"status": "failed", "error": {"code": "x", "message": "bad"}}}
    assert read("/v1/responses", f"data: {json.dumps(failed)}\n\n")[1].error == "bad"
    assert (
        read("/v1/responses", json.dumps({"status": "failed"} | {"error": None}), streamed=False)[1].error is not None
    )


LINES = {
    "/api/chat": [
        '{"model":"m","created_at":"t","message":{"role":"assistant","content":"a"},"done":false}',
        '{"model":"m","created_at":"t","message":{"role":"assistant","content":""},"done":false}',
        '{"model":"m","created_at":"t","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}',
        '{"model":"m","message":{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]},"done":false}',
        '{"model":"m","created_at":"t","message":null,"done":false}',
        '{"created_at":"t","message":{"role":"assistant","content":"lost"},"done":false,"error":"broken"}',
        '{"message":{"role":"assistant","content":"b"},"done":false,"error":null}',
        '{"model":"m","message":{"role":"assistant","content":"!"},"done":true,"eval_count":3}',
    ],
    "/api/generate": [
        '{"model":"m","created_at":"t","response":"a","done":false}',
        '{"model":"m","created_at":"t","response":"","thinking":"hm","done":false}',
        '{"model":"m","created_at":"t","response":null,"done":false}',
        '{"model":"m","response":"lost","done":false,"error":"broken"}',
        '{"model":"m","response":"!","done":true,"eval_count":3}',
    ],
}
ODD_LINES = [
    "",
    "  ",
    "[]",
    "7",
    "null",
    "{}",
    "not JSON",
    '{"error":"broken"}',
    '{"error":""}',
    "1,2",
    '{"a":1},{"b":2}',
]


@given(
    st.sampled_from(sorted(LINES)).flatmap(
        lambda endpoint: st.tuples(
            st.just(endpoint), st.lists(st.sampled_from([*LINES[endpoint], *LINES[endpoint], *ODD_LINES]), max_size=12)
        )
    )
)
def test_lines_that_come_together_say_what_they_say_one_by_one(reply: tuple[str, list[str]]) -> None:
    endpoint, lines = reply
    assert read(endpoint, "".join(line + "\n" for line in lines)) == read(endpoint, *(line + "\n" for line in lines))
