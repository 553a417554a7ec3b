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
