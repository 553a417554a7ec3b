"""A slow answer is given: what a limit means depends on whether the model was there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.api.context import POOL
from service.backend.backend import Backend
from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedSettings
from tests.faults.stage import ECHO, MODEL, PROMPT
from tests.support.backends import until_answering
from tests.support.drop_in import seen
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

KEY = "llama3.2:latest"
SHORT = {
    "timeouts.first_byte_cold_seconds": 0.3,
    "timeouts.first_byte_resident_seconds": 0.3,
    "timeouts.stall_seconds": 0.3,
    "health.probe_interval_seconds": 0.05,
    "retry.initial_seconds": 0.01,
    "retry.cap_seconds": 0.02,
}
WHOLE: dict[str, dict[str, Any]] = {
    "/api/generate": {"model": MODEL, "prompt": PROMPT, "stream": False},
    "/api/chat": {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "stream": False},
    "/api/embed": {"model": "embedder", "input": PROMPT},
    "/v1/embeddings": {"model": "embedder", "input": PROMPT},
    "/v1/chat/completions": {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]},
    "/v1/messages": {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": PROMPT}]},
}


@asynccontextmanager
async def serving(**options: float) -> AsyncIterator[tuple[RunningService, Backend]]:
    models = (*ECHO.models, SimulatedModel("embedder", ("embedding",)))
    settings = SimulatedSettings(models=models, parallel=8, answer_style="echo")
    async with service_in_process(SHORT | options, settings, seats=5) as service:
        await until_answering(service, 1)
        [backend] = service.app[POOL]
        yield service, backend


async def until(service: RunningService, is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_true():
            await service.call("GET", "/health")


async def load(service: RunningService, backend: Backend) -> None:
    """Have the model loaded, and known to be."""
    await service.until(await service.submit("load it", model=MODEL), "completed")
    await until(service, lambda: backend.has_loaded(KEY))


async def final(service: RunningService, job_id: str) -> dict[str, Any]:
    return await service.look(job_id, lambda job: job["status"] in ("completed", "failed"))


@pytest.mark.parametrize("path", WHOLE)
async def test_a_whole_reply_that_is_late_is_given(path: str) -> None:
    async with serving() as (service, backend):
        late = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint=path))
        call = asyncio.create_task(service.call("POST", path, WHOLE[path]))
        model = str(WHOLE[path]["model"]) + ":latest"
        await until(service, lambda: backend.silence.voice(model).silent_since is not None)
        late.release()
        status, answer = await call
        assert (status, service.ollama.observations.requests[path]) == (200, 1), answer


async def test_a_stream_without_a_first_byte_from_a_loaded_model_fails_once_and_names_limit_and_setting() -> None:
    async with serving() as (service, backend):
        await load(service, backend)
        service.ollama.arm(Fault(kind=FaultKind.STALL, prompt=PROMPT))
        job = await final(service, await service.submit(PROMPT, model=MODEL))
        assert (job["status"], job["attempt"], job["error"]["code"]) == ("failed", 1, "first_byte_timeout")
        assert "sent nothing for 0.3 s (timeouts.first_byte_resident_seconds)" in job["error"]["message"]
        assert service.ollama.observations.loads.total() == 1
        # It is no evidence against anybody.
        assert backend.breakers.are_closed_for(KEY)
        assert (backend.breakers.failing, backend.breakers.server.faults) == ({}, 0)


async def test_its_waiting_caller_hears_the_same() -> None:
    async with serving() as (service, backend):
        await load(service, backend)
        service.ollama.arm(Fault(kind=FaultKind.STALL, prompt=PROMPT))
        status, answer = await service.call("POST", "/api/generate", {"model": MODEL, "prompt": PROMPT})
        assert status == 503
        assert "timeouts.first_byte_resident_seconds" in answer["error"]


async def test_a_stream_that_stalls_on_a_loaded_model_fails_once_and_names_limit_and_setting() -> None:
    async with serving() as (service, backend):
        await load(service, backend)
        service.ollama.arm(Fault(kind=FaultKind.STALL, prompt=PROMPT, after_tokens=2))
        job = await final(service, await service.submit(PROMPT, model=MODEL))
        assert (job["status"], job["attempt"], job["error"]["code"]) == ("failed", 1, "stalled")
        assert "for 0.3 s" in job["error"]["message"]
        assert "timeouts.stall_seconds" in job["error"]["message"]


async def test_a_load_that_hangs_is_tried_again() -> None:
    async with serving() as (service, _):
        service.ollama.arm(Fault(kind=FaultKind.LOAD_STALL, times=1))
        job = await final(service, await service.submit(PROMPT, model=MODEL))
        assert (job["status"], job["attempt"], job["failures"]) == ("completed", 2, 1)


async def test_a_limit_while_the_backend_does_not_answer_is_tried_again() -> None:
    async with serving(**{"health.probe_timeout_seconds": 0.1}) as (service, backend):
        await load(service, backend)
        service.ollama.arm(Fault(kind=FaultKind.STALL, prompt=PROMPT, times=1))
        job_id = await service.submit(PROMPT, model=MODEL)
        await service.look(job_id, lambda job: job["status"] == "processing")
        away = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/version"))
        await service.look(job_id, lambda job: job["status"] == "queued")
        assert not backend.is_answering
        away.release()
        job = await final(service, job_id)
        assert (job["status"], job["attempt"], job["failures"]) == ("completed", 2, 1)


async def test_two_first_byte_limits_in_a_row_unload_the_model_once_and_what_was_in_flight_is_tried_again() -> None:
    async with serving() as (service, backend):
        await load(service, backend)
        service.ollama.arm(Fault(kind=FaultKind.RUNNER_HANGS, model=MODEL, times=1))
        ids = [await service.submit(f"{PROMPT} {number}", model=MODEL) for number in range(4)]
        jobs = [await final(service, job_id) for job_id in ids]
        assert sorted(job["status"] for job in jobs) == ["completed"] * 3 + ["failed"]
        assert [job["attempt"] for job in jobs if job["status"] == "completed"] == [2] * 3
        seen = service.ollama.observations
        assert (seen.unloads.total(), seen.loads.total()) == (1, 2)
        assert not backend.silence.hung


async def test_a_slot_that_is_never_given_back_is_freed_so_too() -> None:
    """One slot, wire contract 6: whoever comes after the caller whose tool call could not be parsed gets nothing."""
    async with serving() as (service, backend):
        await load(service, backend)
        service.ollama.arm(Fault(kind=FaultKind.SEAT_LOST, model=MODEL, prompt="break", after_tokens=1, times=8))
        for _ in range(8):
            await final(service, await service.submit("break it", model=MODEL, priority="high"))
        ids = [await service.submit(f"{PROMPT} {number}", model=MODEL) for number in range(3)]
        jobs = [await final(service, job_id) for job_id in ids]
        assert [job["status"] for job in jobs].count("completed") >= 2
        assert service.ollama.observations.unloads.total() == 1
        assert (await final(service, await service.submit("afterwards", model=MODEL)))["status"] == "completed"


async def test_whole_replies_are_not_ended_by_it_but_when_their_model_is_gone() -> None:
    async with serving() as (service, backend):
        await load(service, backend)
        service.ollama.arm(Fault(kind=FaultKind.RUNNER_HANGS, model=MODEL, times=1))
        service.ollama.arm(Fault(kind=FaultKind.UNLOAD_AT_ONCE))
        body = WHOLE["/api/generate"]
        calls = [service.call("POST", "/api/generate", body | {"prompt": f"{PROMPT} {number}"}) for number in range(2)]
        answers = await asyncio.gather(*calls)
        assert [status for status, _ in answers] == [200, 200]
        assert service.ollama.observations.loads.total() == 2


async def test_two_whole_replies_that_are_only_slow_are_given_though_their_model_is_unloaded_behind_them() -> None:
    async with serving() as (service, backend):
        await load(service, backend)
        slow = service.ollama.arm(Fault(kind=FaultKind.STALL, prompt=PROMPT))
        body = WHOLE["/api/generate"]
        calls = [
            asyncio.create_task(service.call("POST", "/api/generate", body | {"prompt": f"{PROMPT} {number}"}))
            for number in range(2)
        ]
        await until(service, lambda: backend.silence.hung)
        slow.release()
        answers = [await call for call in calls]
        assert [status for status, _ in answers] == [200, 200]
        assert len([prompt for prompt in service.ollama.observations.prompts if PROMPT in prompt]) == 2


@pytest.mark.parametrize("second_is_streamed", [False, True])
async def test_a_whole_reply_at_a_model_that_hangs_keeps_others_away_no_longer_than_an_unload_takes(
    second_is_streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection holds the runner, which stays loaded for as long."""
    monkeypatch.setattr("service.workers.hung_models._UNLOAD_MS", 300)
    async with serving() as (service, backend):
        await load(service, backend)
        hang = service.ollama.arm(Fault(kind=FaultKind.RUNNER_HANGS, model=MODEL, times=1))
        body = WHOLE["/api/generate"]
        first = asyncio.create_task(service.call("POST", "/api/generate", body | {"prompt": "one"}))
        second = body | {"prompt": "two", "stream": second_is_streamed}
        other = asyncio.create_task(seen(service.session, "POST", "/api/generate", second))
        await until(service, lambda: backend.silence.hung)
        await until(service, lambda: not backend.silence.is_hung(KEY))
        assert backend.has_loaded(KEY)
        hang.release()
        assert [(await first)[0], (await other).status] == [200, 200]
        assert not backend.silence.hung


# Five seats against one slot

IN_TURN = SimulatedSettings(models=ECHO.models, parallel=1, tokens=12, token_seconds=0.05)
"""An answer takes longer than the limit on a first byte, and four go before the last."""
ONE_SLOT = {"timeouts.first_byte_resident_seconds": 0.5, "timeouts.stall_seconds": 60}


@asynccontextmanager
async def one_slot() -> AsyncIterator[RunningService]:
    async with service_in_process(SHORT | ONE_SLOT | {"timeouts.first_byte_cold_seconds": 60}, IN_TURN) as service:
        await until_answering(service, 1)
        [backend] = service.app[POOL]
        await load(service, backend)
        yield service


def prompts(service: RunningService) -> list[str]:
    """What the server was asked behind the load, in its order."""
    return service.ollama.observations.prompts[1:]


async def test_five_calls_to_one_slot_are_all_given_by_their_first_attempt_and_in_order() -> None:
    async with one_slot() as service:
        names = [f"number {number}" for number in range(5)]
        ids = [await service.submit(name, model=MODEL) for name in names]
        jobs = [await final(service, job_id) for job_id in ids]
        assert [(job["status"], job["attempt"]) for job in jobs] == [("completed", 1)] * 5
        assert prompts(service) == names
        assert service.ollama.observations.peak_running == {KEY: 1}
        [backend] = service.app[POOL]
        assert not list(backend.placement.holds.calls)
        assert not service.ollama.observations.unloads


async def test_so_are_streams_behind_whole_replies_of_which_no_byte_is_heard_before_they_are_done() -> None:
    async with one_slot() as service:
        bodies = [{"model": MODEL, "prompt": f"number {number}", "stream": number == 2} for number in range(3)]
        calls: list[asyncio.Task[Any]] = []
        for body in bodies:
            calls.append(asyncio.create_task(seen(service.session, "POST", "/api/generate", body)))
            await service.ollama.observations.until(lambda seen: len(prompts(service)) == len(calls))
        assert [(await call).status for call in calls] == [200, 200, 200]
        assert prompts(service) == ["number 0", "number 1", "number 2"]
        assert not service.ollama.observations.unloads
