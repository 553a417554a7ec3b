"""Replies of newer Ollamas that are no answers although their status is 200."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.api.context import POOL
from tests.support.drop_in import STREAMING, WHOLE, frame_of, seen
from tests.support.raw_server import whole
from tests.support.scripted_ollama import MODEL, events, refused, scripted, stream

RESPONSES = {"model": MODEL, "input": "x", "stream": True, "tools": [{"type": "web_search"}]}
BUSY = "server busy, please try again.  maximum pending requests exceeded"
DIED = "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error"
PEG = "The model produced output that does not match the expected peg-native format"


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())


OPENING = b"".join(event(kind, response={"id": "one"}) for kind in ("response.created", "response.in_progress"))
ANSWER = event("response.output_text.delta", delta="blue") + event(
    "response.completed", response={"usage": {"input_tokens": 2, "output_tokens": 1}}
)


def failed(message: str, code: str = "api_error") -> bytes:
    return event("response.failed", response={"status": "failed", "error": {"code": code, "message": message}})


@pytest.mark.parametrize(
    ("message", "code", "error_code"),
    [
        ("model 'nosuch' not found", "api_error", "model_not_found"),
        ("model is required", "api_error", "refused"),
        ("Jinja Exception: No user query found in messages.", "api_error", "refused"),
        ("unauthorized; sign in at https://ollama.com/connect", "authentication_error", "refused"),
        ("registry.ollama.ai/library/x:latest does not support tools", "api_error", "refused"),
    ],
)
async def test_a_refusal_inside_a_stream_is_final_at_once_and_ollamas_own_bytes(
    message: str, code: str, error_code: str
) -> None:
    refusal = OPENING + failed(message, code)
    async with scripted(events(refusal)) as it:
        given = await seen(it.service.session, "POST", "/v1/responses", RESPONSES)
        assert given[:4] == (200, "text/event-stream", refusal, True)
        job = await it.service.until(given.headers["X-Job-Id"], "failed")
        assert (job["attempt"], job["error"]) == (1, {"code": error_code, "message": message})
        assert len(it.given) == 1


@pytest.mark.parametrize(
    ("message", "code", "attempts", "failures"),
    [
        (BUSY, "api_error", 2, 0),
        (DIED, "api_error", 2, 1),
        (PEG, "api_error", 2, 1),
        ("slower, please", "rate_limit_exceeded", 2, 1),
    ],
)
async def test_what_passes_inside_a_stream_is_tried_again_and_its_caller_sees_the_answer_only(
    message: str, code: str, attempts: int, failures: int
) -> None:
    refusal, answer = events(OPENING, failed(message, code)), events(OPENING, ANSWER)
    async with scripted(refusal, answer) as it:
        async with it.service.session.post("/v1/responses", json=RESPONSES) as reply:
            assert await reply.read() == OPENING + ANSWER
        job = await it.service.until(reply.headers["X-Job-Id"], "completed")
        assert (job["attempt"], job.get("failures", 0)) == (attempts, failures)


async def test_a_caller_that_does_not_wait_for_a_busy_backend_gets_its_refusal_inside_the_stream() -> None:
    refusal = OPENING + failed(BUSY)
    async with (
        scripted(events(refusal), queue__hold_busy=False) as it,
        it.service.session.post("/v1/responses", json=RESPONSES) as reply,
    ):
        assert (reply.status, await reply.read()) == (200, refusal)


TOLD = b'data: {"error":{"message":"%b"}}\n\n' % DIED.encode()


@pytest.mark.parametrize(
    ("path", "broken"),
    [
        ("/v1/responses", OPENING + event("response.output_text.delta", delta="blue") + failed(DIED)),
        ("/v1/chat/completions", b'data: {"model":"m","choices":[{"delta":{"content":"blue"}}]}\n\n' + TOLD),
        ("/v1/completions", b'data: {"model":"m","choices":[{"text":"blue"}]}\n\n' + TOLD),
        (
            "/v1/messages",
            event("content_block_delta", delta={"text": "blue"}) + event("error", error={"message": DIED}),
        ),
    ],
)
async def test_a_failure_that_ollama_tells_in_the_middle_of_events_is_passed_on_and_our_error_follows(
    path: str, broken: bytes
) -> None:
    async with scripted(events(broken)) as it:
        given = await seen(it.service.session, "POST", path, {**STREAMING[path], **RESPONSES})
        assert given.is_whole
        assert given.body.startswith(broken)
        assert DIED in frame_of(path, given.body.removeprefix(broken))


async def test_a_failure_that_ollama_tells_in_the_middle_of_lines_is_passed_on_and_breaks_them_off() -> None:
    broken = b'{"model":"m","response":"blue","done":false}\n' + json.dumps({"error": DIED}).encode() + b"\n"
    async with scripted(stream(broken)) as it:
        given = await seen(it.service.session, "POST", "/api/generate", {"model": MODEL, "prompt": "x"})
        assert (given.body, given.is_whole) == (broken, False)


@pytest.mark.parametrize("path", STREAMING)
async def test_a_stream_without_a_single_line_is_asked_for_once_more_and_then_an_error(path: str) -> None:
    nothing = stream() if path.startswith("/api/") else events()
    async with scripted(nothing) as it:
        given = await seen(it.service.session, "POST", path, {**STREAMING[path], "model": MODEL})
        assert (given.status, given.headers["x-should-retry"]) == (500, "false")
        error = json.loads(given.body)["error"]
        assert "before it was complete" in (error if isinstance(error, str) else error["message"])
        job = await it.service.until(given.headers["X-Job-Id"], "failed")
        assert (job["attempt"], job["error"]["code"]) == (2, "truncated")


async def test_a_stream_without_a_single_line_is_followed_by_a_good_one() -> None:
    good = json.dumps({"model": MODEL, "response": "blue", "done": True, "done_reason": "stop"}).encode() + b"\n"
    async with scripted(stream(), stream(good)) as it:
        given = await seen(it.service.session, "POST", "/api/generate", {"model": MODEL, "prompt": "x"})
        assert given[:4] == (200, "application/x-ndjson", good, True)


NOTHING: dict[str, dict[str, Any]] = {
    "/api/generate": {"model": "", "created_at": "0001-01-01T00:00:00Z", "response": "", "done": False},
    "/api/chat": {
        "model": "",
        "created_at": "0001-01-01T00:00:00Z",
        "message": {"role": "", "content": ""},
        "done": False,
    },
    "/v1/chat/completions": {
        "created": -62135596800,
        "model": "",
        "choices": [{"index": 0, "message": {"role": "", "content": ""}, "finish_reason": None}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    },
    "/v1/completions": {
        "created": -62135596800,
        "model": "",
        "choices": [{"text": "", "index": 0, "finish_reason": None}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    },
    "/v1/responses": {
        "created_at": -62135596800,
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": ""}]}],
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
    },
    "/v1/messages": {
        "type": "message",
        "role": "assistant",
        "model": "",
        "content": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    },
}
"""What Ollama makes of a generation of which not a single token came."""


@pytest.mark.parametrize("path", NOTHING)
async def test_a_whole_reply_of_zeros_is_asked_for_once_more_and_then_an_error(path: str) -> None:
    async with scripted(whole(json.dumps(NOTHING[path]).encode())) as it:
        given = await seen(it.service.session, "POST", path, {**WHOLE[path], "model": MODEL})
        assert given.status == 500
        error = json.loads(given.body)["error"]
        if path.startswith("/api/"):
            assert error == "the reply ended before it was complete"
        else:
            assert (error["message"], error["type"]) == ("the reply ended before it was complete", "api_error")
        assert len(it.given) == 2


async def test_a_chat_whose_last_chunk_names_no_model_is_told_as_broken() -> None:
    text = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"blue"},"finish_reason":null}]}\n\n'
    swallowed = b'data: {"model":"","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}\n\n'
    path = "/v1/chat/completions"
    async with scripted(events(text, swallowed)) as it:
        given = await seen(it.service.session, "POST", path, {**STREAMING[path], "model": MODEL})
        assert given.is_whole
        assert "before it was complete" in frame_of(path, given.body.removeprefix(text + swallowed))


async def test_a_chat_of_which_only_a_chunk_without_a_model_came_is_tried_again() -> None:
    swallowed = b'data: {"model":"","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}\n\n'
    path = "/v1/chat/completions"
    answer = (
        b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"blue"},"finish_reason":"stop"}]}\n\n'
        b"data: [DONE]\n\n"
    )
    async with scripted(events(swallowed), events(answer)) as it:
        given = await seen(it.service.session, "POST", path, {**STREAMING[path], "model": MODEL})
        assert (given.status, given.body, given.is_whole) == (200, answer, True)
    async with scripted(events(swallowed)) as it:
        status, told = await it.service.call("POST", path, {**STREAMING[path], "model": MODEL})
        assert (status, told["error"]["type"], len(it.given)) == (500, "api_error", 2)


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_proxys_refusal_of_one_request_is_that_requests_and_takes_the_backend_from_nobody(status: int) -> None:
    page = whole(b"<html>no</html>", status=f"{status} x", content_type="text/html")
    answer = stream(b'{"model":"m","response":"blue","done":false}\n{"model":"m","response":"","done":true}\n')
    body = {**STREAMING["/api/generate"], "model": MODEL}
    async with scripted(page, answer) as it:
        refused_status, _ = await it.service.call("POST", "/api/generate", body)
        assert (refused_status, len(it.given)) == (503, 1)
        [backend] = it.service.app[POOL]
        assert (backend.is_answering, backend.trouble) == (True, None)
        assert (await seen(it.service.session, "POST", "/api/generate", body)).status == 200


@pytest.mark.parametrize(
    ("message", "attempts"),
    [(PEG, 2), ("error parsing tool call: raw='x', err=x", 2), ("Jinja Exception: x", 1), ("template: :1: x", 1)],
)
async def test_a_refusal_is_told_in_ollamas_words_with_its_status(message: str, attempts: int) -> None:
    async with scripted(refused(500, message)) as it:
        status, answer = await it.service.call("POST", "/api/chat", {**WHOLE["/api/chat"], "model": MODEL})
        assert (status, answer) == (500, {"error": message})
        assert len(it.given) == attempts


async def test_what_the_model_wrote_is_not_asked_for_again_where_no_retries_are_wanted() -> None:
    async with scripted(refused(500, PEG), retry__max_retries=0) as it:
        assert (await it.service.call("POST", "/api/chat", {**WHOLE["/api/chat"], "model": MODEL}))[0] == 500
        assert len(it.given) == 1
