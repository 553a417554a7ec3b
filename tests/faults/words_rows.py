"""What Ollama refuses of a request, and what it cannot make an answer of: one caller's error is nobody else's."""

from __future__ import annotations

import json
from pathlib import Path

from service.simulated import FaultKind, SimulatedModel
from tests.faults.ollama_rows import OLLAMA
from tests.faults.rows import row
from tests.faults.stage import ECHO, MODEL, PROMPT, Stage, stage
from tests.support.scripted_ollama import MODEL as SCRIPTED_MODEL
from tests.support.scripted_ollama import events, scripted

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "stream": False}
_STRICT = {"breaker.failure_threshold": 1}
"""With these, the first evidence against the model would keep its jobs back."""


async def _refused(it: Stage, status: int, message: str, attempts: int) -> None:
    """The job and the caller are told in Ollama's words, after so many attempts, and nobody else is kept back."""
    armed = it.arm(FaultKind.ERROR, times=None, status=status, message=message)
    job = await it.ends(await it.submit(), "failed")
    assert (job["attempt"], job["error"]["message"]) == (attempts, message)
    assert (await it.service.call("POST", "/api/chat", CHAT)) == (status, {"error": message})
    assert armed.applied == 2 * attempts
    assert (it.breaker.state, it.states) == ("closed", {})
    armed.remove()
    await it.is_well()


@row(
    OLLAMA,
    "the model writes a tool call that cannot be parsed (500)",
    "asked for once more; the second time the job fails in Ollama's words, and is no evidence against the model",
)
async def tool_call(folder: Path) -> None:
    async with stage(_STRICT) as it:
        message = "error parsing tool call: raw='{\"city\": }', err=invalid character '}'"
        it.arm(FaultKind.ERROR, status=500, message=message)
        assert (await it.completes(await it.submit()))["attempt"] == 2
        await _refused(it, 500, message, attempts=2)


@row(OLLAMA, "the model writes what is not UTF-8, or what its format does not allow (500)", "the same")
async def not_utf8(folder: Path) -> None:
    async with stage(_STRICT) as it:
        for message in (
            "[json.exception.type_error.316] invalid UTF-8 byte at index 359: 0xE5",
            "The model produced output that does not match the expected peg-native format",
        ):
            await _refused(it, 500, message, attempts=2)


@row(
    OLLAMA,
    "the model's template refuses the messages (500)",
    "the job fails at once with Ollama's words and status, is never sent again, and is no evidence against the model",
)
async def template(folder: Path) -> None:
    async with stage(_STRICT) as it:
        words = "While executing CallExpression at line 85, column 32 in source:\nError: Jinja Exception: No user query"
        await _refused(it, 500, words, attempts=1)


@row(OLLAMA, "the context is exceeded (400, 500)", "the same")
async def context(folder: Path) -> None:
    async with stage(_STRICT) as it:
        await _refused(it, 400, "request (900 tokens) exceeds the available context size (512 tokens)", attempts=1)
        await _refused(it, 500, "Context size has been exceeded.", attempts=1)


@row(
    OLLAMA,
    "the runner of an embedding model dies under a call (400 on `/api/embed`)",
    "the call is tried again, which loads the model again",
)
async def embeddings(folder: Path) -> None:
    models = (*ECHO.models, SimulatedModel("embed", ("embedding",)))
    async with stage(models=models) as it:
        for path, body in (
            ("/api/embed", {"model": "embed", "input": [PROMPT]}),
            ("/v1/embeddings", {"model": "embed", "input": PROMPT}),
        ):
            it.arm(FaultKind.ERROR, status=400, message='Post "http://127.0.0.1:40001/tokenize": EOF')
            async with it.service.session.post(path, json=body) as reply:
                assert reply.status == 200
                job = await it.ends(reply.headers["X-Job-Id"], "completed")
            assert (job["attempt"], job["failures"]) == (2, 1)
        await it.is_well()


@row(
    OLLAMA,
    "it refuses inside a stream of status 200 (`/v1/responses` with web search)",
    "a refusal like any other: busy is held, what passes is tried again, and what is final is passed on as it is",
)
async def refusal_in_stream(folder: Path) -> None:
    body = {"model": SCRIPTED_MODEL, "input": "x", "stream": True, "tools": [{"type": "web_search"}]}
    busy, absent, answer = (
        _event("response.created") + last
        for last in (
            _failed("server busy, please try again.  maximum pending requests exceeded"),
            _failed("model 'x' not found"),
            _event("response.completed", response={}),
        )
    )
    for replies, attempts, failures, expected in (
        ((busy, answer), 2, 0, answer),
        ((absent,), 1, 0, absent),
    ):
        async with (
            scripted(*(events(reply) for reply in replies)) as it,
            it.service.session.post("/v1/responses", json=body) as reply,
        ):
            assert (reply.status, await reply.read()) == (200, expected)
            job = await it.service.look(reply.headers["X-Job-Id"], lambda job: job["status"] in ("completed", "failed"))
            assert (job["attempt"], job.get("failures", 0)) == (attempts, failures)


def _event(kind: str, **fields: object) -> bytes:
    return b"data: %b\n\n" % json.dumps({"type": kind, **fields}).encode()


def _failed(message: str) -> bytes:
    return _event("response.failed", response={"error": {"code": "api_error", "message": message}})
