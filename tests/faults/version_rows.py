"""What newer versions of Ollama can do wrong, and what hangs in one that answers otherwise."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from service.simulated import Fault, FaultKind, SimulatedModel
from tests.faults.ollama_rows import OLLAMA
from tests.faults.rows import row
from tests.faults.stage import MODEL, PROMPT, Stage, stage
from tests.support.drop_in import seen
from tests.support.simulation import sse_events

NEWEST = "0.40.0"
SEARCHING: dict[str, Any] = {"model": MODEL, "input": PROMPT, "stream": True, "tools": [{"type": "web_search"}]}
SEARCHER = (SimulatedModel(MODEL, ("completion", "tools")),)


@row(OLLAMA, "its stream ends properly without a single line", "never taken for whole: tried once more")
async def silent_end(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.SILENT_END)
        assert (await it.completes(await it.submit()))["attempt"] == 2
        await it.is_well()


@row(
    OLLAMA,
    "it ends a generation of the same token again and again with an error (since 0.34.1)",
    "the half answer is thrown away, tried again",
)
async def token_repeats_with_an_error(folder: Path) -> None:
    async with stage(version=NEWEST) as it:
        it.arm(FaultKind.TOKEN_REPEATS, after_tokens=3)
        assert (await it.completes(await it.submit()))["attempt"] == 2
        await it.is_well()


@row(
    OLLAMA,
    "a parser's error costs a runner one of its seats for ever (0.30 to 0.32.14)",
    "the job is tried again, in a seat that is left",
)
async def seat_lost(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.SEAT_LOST, after_tokens=3)
        assert (await it.completes(await it.submit()))["attempt"] == 2
        await it.is_well()


@row(
    OLLAMA,
    "a runner hangs, and its model is unloaded under the silent call",
    "the first-byte limit ends the attempt; the job is tried again, which loads the model again",
)
async def runner_hangs(folder: Path) -> None:
    limits = {"timeouts.first_byte_cold_seconds": 0.5, "timeouts.first_byte_resident_seconds": 0.5}
    async with stage(limits) as it:
        it.arm(FaultKind.RUNNER_HANGS)
        it.ollama.arm(Fault(kind=FaultKind.UNLOAD_AT_ONCE, times=1))
        job_id = await it.submit()
        await it.ollama.observations.until(lambda seen: seen.stalled == 1)
        unload = {"model": MODEL, "keep_alive": 0}
        async with it.service.session.post(f"{it.ollama.url}/api/generate", json=unload) as response:
            assert response.status == 200
        assert (await it.completes(job_id))["attempt"] == 2
        assert it.ollama.observations.loads.total() == 2
        await it.is_well()


async def _search(it: Stage) -> tuple[str, list[str | None]]:
    """The job and the events of a call that makes the server search the web."""
    reply = await seen(it.service.session, "POST", "/v1/responses", SEARCHING)
    assert reply.status == 200
    return reply.headers["X-Job-Id"], [name for name, _ in sse_events(reply.body)]


@row(OLLAMA, "it searches the web, and says nothing meanwhile", "the reply is given whole")
async def search_is_silent(folder: Path) -> None:
    async with stage(version=NEWEST, models=SEARCHER) as it:
        search = it.arm(FaultKind.SEARCH_STALL)
        asking = asyncio.create_task(_search(it))
        await it.ollama.observations.until(lambda seen: seen.stalled == 1)
        search.release()
        job_id, events = await asking
        assert events[-1] == "response.completed"
        assert "response.web_search_call.completed" in events
        assert (await it.ends(job_id, "completed"))["attempt"] == 1
        await it.is_well()


@row(OLLAMA, "its web search fails in the middle of a stream", "the caller is told inside the stream, the job fails")
async def search_fails(folder: Path) -> None:
    async with stage(version=NEWEST, models=SEARCHER) as it:
        it.arm(FaultKind.SEARCH_ERROR, times=None)
        job_id, events = await _search(it)
        assert events[-2:] == ["response.failed", "error"]
        await it.ends(job_id, "failed")
        await it.is_well()
