"""How a drop-in stream ends that is not whole: by dialect, since their clients take different ends for the answer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from service.simulated import FaultKind
from tests.faults.ollama_rows import OLLAMA
from tests.faults.rows import row
from tests.faults.stage import MODEL, PROMPT, Stage, stage
from tests.support.drop_in import frame_of, seen, whole_part
from tests.support.signs_of_life import OFTEN, Reading

LINES = ("/api/generate", "/api/chat")
EVENTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
BODY: dict[str, Any] = {
    "model": MODEL,
    "prompt": PROMPT,
    "input": PROMPT,
    "messages": [{"role": "user", "content": PROMPT}],
    "max_tokens": 99,
    "stream": True,
}


async def _breaks_off(it: Stage, path: str) -> bool:
    """Whether a stream that Ollama does not finish ends as HTTP says; its last words are one error of ours."""
    cut = it.arm(FaultKind.HANG_UP, after_tokens=4, times=None)
    expected = await seen(it.service.session, "POST", f"{it.ollama.url}{path}", BODY)
    given = await seen(it.service.session, "POST", path, BODY)
    cut.remove()
    common = whole_part(path, expected.body)
    assert common
    assert given.body.startswith(common)
    assert frame_of(path, given.body.removeprefix(common))
    await it.ends(given.headers["X-Job-Id"], "failed")
    return given.is_whole


@row(
    OLLAMA,
    "a drop-in stream of events (`/v1/*`) breaks off when its caller has the beginning",
    "our error is the last event, also behind one of Ollama's own, and the stream ends as HTTP says",
)
async def events_break_off(folder: Path) -> None:
    async with stage() as it:
        assert [path for path in EVENTS if not await _breaks_off(it, path)] == []
        await it.is_well()


@row(
    OLLAMA,
    "a drop-in stream of lines (`/api/*`) does",
    "an error is the last line, Ollama's own or ours, and the connection is broken",
)
async def lines_break_off(folder: Path) -> None:
    async with stage() as it:
        assert [path for path in LINES if await _breaks_off(it, path)] == []
        await it.is_well()


@row(
    OLLAMA,
    "it refuses a request whose caller was sent a sign of life",
    "the error is told in the same way, and names the status",
)
async def refused_after_a_sign_of_life(folder: Path) -> None:
    async with stage(OFTEN) as it:
        for path in (*LINES, *EVENTS):
            stalled = it.arm(FaultKind.STALL)
            it.arm(FaultKind.ERROR, status=400, message="out of order")
            headers = {"Accept": "application/x-ndjson"}
            async with (
                it.service.session.post(path, json=BODY, headers=headers) as response,
                Reading(path, response) as caller,
            ):
                assert response.status == 200
                await caller.sees(signs=2)
                stalled.release()
                await caller.ends()
            assert frame_of(path, caller.body) == "out of order"
            assert caller.is_whole is (path in EVENTS)
        await it.is_well()


@row(
    OLLAMA,
    "it ends a stream of the same token again and again, without a word (before 0.34.1)",
    "its caller is given the same end; the job fails at once as `repeated`, with its text, and is no evidence against "
    "anybody. A whole reply is never taken for whole: asked for once more",
)
async def token_repeats(folder: Path) -> None:
    async with stage({"breaker.failure_threshold": 1}) as it:
        armed = it.arm(FaultKind.TOKEN_REPEATS, after_tokens=3, times=None)
        for path in (*LINES, *EVENTS):
            headers = {"Accept": "application/x-ndjson"}
            expected = await seen(it.service.session, "POST", f"{it.ollama.url}{path}", BODY, headers)
            given = await seen(it.service.session, "POST", path, BODY, headers)
            assert given.is_whole
            assert given.comparable == expected.comparable
            job = await it.ends(given.headers["X-Job-Id"], "failed")
            assert (job["attempt"], job["error"]["code"]) == (1, "repeated")
        follower = await it.follow(await it.submit())
        await follower.ends()
        assert follower.text.endswith(" the" * 31)
        assert (it.breaker.state, it.states) == ("closed", {})
        assert (await seen(it.service.session, "POST", "/api/chat", {**BODY, "stream": False})).status == 500
        armed.remove()
        await it.is_well()


@row(
    OLLAMA,
    "a line of its stream holds more than may be read as JSON at once",
    "the job fails without another try (`output_too_large`), the next one runs",
)
async def line_of_too_much(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.FLOOD, body='{"response":"","tool_calls":[…[],…[]]}\n', size=200_000, endpoint="/api/generate")
        job = await it.ends(await it.submit(), "failed")
        assert (job["attempt"], job["error"]["code"]) == (1, "output_too_large")
        await it.completes(await it.submit())
        await it.is_well()
