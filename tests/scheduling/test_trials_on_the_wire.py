"""Trials with a simulated Ollama that has room for so many models, its fast path and its trap (wire contract 4.3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.api.context import POOL
from service.backend.placement import Placement
from service.simulated import ArmedFault, Fault, FaultKind, SimulatedModel, SimulatedSettings
from tests.support.backends import until_answering
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

NAMES = ("one", "two", "three")
MODELS = tuple(SimulatedModel(name) for name in NAMES)


@asynccontextmanager
async def serving(room: int, folder: Path | None = None, **options: Any) -> AsyncIterator[RunningService]:
    settings = SimulatedSettings(models=MODELS, parallel=4, max_loaded_models=room, tokens=3)
    given = {"health.probe_interval_seconds": 0.05, "queue.max_swap_wait_seconds": 60.0, **options}
    async with service_in_process(given, settings, seats=4, folder=folder) as service:
        await until_answering(service, 1)
        yield service


def placement_of(service: RunningService) -> Placement:
    [backend] = service.app[POOL]
    return backend.placement


async def long_answer(service: RunningService, model: str = "one", **fields: Any) -> tuple[ArmedFault, str]:
    """An answer that has begun, and ends when the fault is released."""
    stall = service.ollama.arm(Fault(kind=FaultKind.STALL, model=model, after_tokens=1, times=1))
    job_id = await service.submit("a long one", model=model, **fields)
    await service.ollama.observations.until(lambda seen: seen.stalled == 1)
    return stall, job_id


async def test_a_second_model_is_answered_while_the_first_one_answers() -> None:
    async with serving(room=3) as service:
        stall, first = await long_answer(service)
        second = await service.until(await service.submit("meanwhile", model="two"), "completed")
        assert second["attempt"] == 1
        assert (await service.look(first, lambda job: True))["status"] == "processing"
        stall.release()
        await service.until(first, "completed")
        assert service.ollama.observations.loads.total() == 2


async def test_without_room_it_is_answered_behind_that_answer_and_nothing_is_sent_between() -> None:
    async with serving(room=1) as service:
        stall, first = await long_answer(service)
        second = await service.submit("meanwhile", model="two")
        await service.look(second, lambda job: job["status"] == "processing")
        third = await service.submit("more of the first", model="one")
        job = await service.look(third, lambda job: job["status"] == "queued")
        assert placement_of(service).holds.hold is not None
        stall.release()
        for job_id in (first, second, third):
            job = await service.until(job_id, "completed")
            assert job["attempt"] == 1
        assert list(service.ollama.observations.load_order)[:2] == ["one:latest", "two:latest"]


@pytest.mark.parametrize("room", [1, 3])
async def test_a_trial_that_is_cancelled_hangs_nobody(room: int) -> None:
    async with serving(room) as service:
        stall, first = await long_answer(service)
        load = service.ollama.arm(Fault(kind=FaultKind.LOAD_STALL, model="two", times=1))
        second = await service.submit("meanwhile", model="two")
        await service.look(second, lambda job: job["status"] == "processing")
        await service.call("DELETE", f"/api/v1/prompt/{second}")
        third = await service.submit("more of the first", model="one")
        load.release()
        stall.release()
        for job_id in (first, third):
            await service.until(job_id, "completed")
        await service.until(await service.submit("again", model="two"), "completed")


async def test_calls_with_keep_alive_hang_nobody() -> None:
    """A call that arrives behind the load would rewrite when its model is to go (wire contract 4.3)."""
    async with serving(room=1) as service, asyncio.timeout(PATIENCE_SECONDS):

        async def ask(model: str, number: int) -> int:
            body = {"model": model, "prompt": f"{number}", "stream": False, "keep_alive": "10m"}
            return (await service.call("POST", "/api/generate", body))[0]

        answers = await asyncio.gather(*(ask(name, number) for number in range(10) for name in NAMES))
        assert set(answers) == {200}


async def test_what_is_listed_together_at_the_start_needs_no_trial() -> None:
    async with serving(room=3) as service:
        for name in NAMES:
            await service.until(await service.submit("load", model=name), "completed")
        placement = placement_of(service)
        stall, first = await long_answer(service)
        for name in NAMES[1:]:
            await service.until(await service.submit("meanwhile", model=name), "completed")
            assert placement.holds.hold is None
        stall.release()
        await service.until(first, "completed")
        assert service.ollama.observations.loads.total() == 3
