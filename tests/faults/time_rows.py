"""What takes long, or for ever."""

from __future__ import annotations

from pathlib import Path

from service.simulated import Fault, FaultKind
from tests.faults.ollama_rows import OLLAMA
from tests.faults.rows import row
from tests.faults.stage import MODEL, PROMPT, stage


@row(OLLAMA, "its first byte takes long, within the limit", "the job waits, and is completed by its first attempt")
async def slow_headers(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.DELAY_HEADERS, seconds=0.3)
        assert (await it.completes(await it.submit()))["attempt"] == 1
        await it.is_well()


@row(
    OLLAMA,
    "no first byte comes within the limit, and the model is not there yet",
    "the load hangs: the attempt is given up and the job tried again",
)
async def no_headers(folder: Path) -> None:
    async with stage({"timeouts.first_byte_cold_seconds": 0.5}) as it:
        it.ollama.arm(Fault(kind=FaultKind.LOAD_STALL, times=1))
        job = await it.completes(await it.submit())
        assert job["attempt"] == job["failures"] + 1 >= 2
        await it.ollama.observations.until(lambda seen: seen.closed_connections >= 1)
        await it.is_well()


@row(
    OLLAMA,
    "no first byte comes within the limit from a model that is loaded",
    "it would be as slow again: the job fails once, in words that name the limit and its setting",
)
async def no_headers_of_a_loaded_model(folder: Path) -> None:
    async with stage({"timeouts.first_byte_resident_seconds": 0.5}) as it:
        await it.is_well()
        it.arm(FaultKind.STALL)
        job = await it.ends(await it.submit(), "failed")
        assert (job["attempt"], job["error"]["code"]) == (1, "first_byte_timeout")
        assert "timeouts.first_byte_resident_seconds" in job["error"]["message"]
        await it.is_well()


@row(
    OLLAMA,
    "two calls in a row to a loaded model meet that limit, and nothing is heard of it",
    "it hangs: it is sent nothing more and unloaded once, and what waited for it is tried again",
)
async def runner_hangs(folder: Path) -> None:
    async with stage({"timeouts.first_byte_resident_seconds": 0.5}) as it:
        await it.is_well()
        it.ollama.arm(Fault(kind=FaultKind.RUNNER_HANGS, model=MODEL, times=1))
        jobs = [await it.submit(f"{PROMPT} {number}") for number in range(3)]
        ends = [await it.service.look(job, lambda job: job["status"] in ("completed", "failed")) for job in jobs]
        assert sorted(job["status"] for job in ends) == ["completed", "completed", "failed"]
        assert it.ollama.observations.unloads.total() == 1
        await it.is_well()


@row(
    OLLAMA,
    "a reply that is asked for whole takes longer than that limit",
    "it is silent until it is done: only the attempt's ceiling ends it",
)
async def late_whole_reply(folder: Path) -> None:
    async with stage({"timeouts.first_byte_resident_seconds": 0.2, "timeouts.stall_seconds": 0.2}) as it:
        await it.is_well()
        it.arm(FaultKind.DELAY_HEADERS, seconds=0.6)
        status, answer = await it.service.call(
            "POST", "/api/generate", {"model": MODEL, "prompt": PROMPT, "stream": False}
        )
        assert (status, answer["response"]) == (200, PROMPT)
        await it.is_well()


@row(OLLAMA, "tokens come slowly, each within the limit", "there is no limit on a stream that moves: completed")
async def slow_tokens(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.PACE, seconds=0.02)
        assert (await it.completes(await it.submit()))["attempt"] == 1
        await it.is_well()


@row(
    OLLAMA,
    "the stream stalls in the middle, and its model is loaded",
    "the attempt is given up and the job fails once, in words that name the limit and its setting",
)
async def stalled(folder: Path) -> None:
    async with stage({"timeouts.stall_seconds": 0.5}) as it:
        it.arm(FaultKind.STALL, after_tokens=3)
        job = await it.ends(await it.submit(), "failed")
        assert (job["attempt"], job["error"]["code"]) == (1, "stalled")
        assert "timeouts.stall_seconds" in job["error"]["message"]
        await it.is_well()


@row(
    OLLAMA,
    "the stream stalls in the middle, and the server does not answer any more",
    "the attempt is given up, the half answer thrown away, the job tried again",
)
async def stalled_server(folder: Path) -> None:
    async with stage({"timeouts.stall_seconds": 0.5, "health.probe_timeout_seconds": 0.1}) as it:
        it.arm(FaultKind.STALL, after_tokens=3)
        job_id = await it.submit()
        await it.service.look(job_id, lambda job: job["status"] == "processing")
        away = it.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/version"))
        await it.service.look(job_id, lambda job: job["failures"] == 1)
        away.release()
        assert (await it.completes(job_id))["attempt"] == 2
        await it.is_well()
