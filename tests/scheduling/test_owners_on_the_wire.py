"""One owner's options keep nobody else waiting: the service over the simulated Ollama, where loads are counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any

from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedSettings
from tests.support.backends import until_answering
from tests.support.running import RunningService, service_in_process

NAMES = ("one", "two", "three", "four")
LOAD_SECONDS = 0.2
MANY, OTHER = "203.0.113.7", "2001:db8:1:2::9"
"""Two owners, as their proxy names them."""


@asynccontextmanager
async def serving(*, swap_wait_seconds: float = 2.0) -> AsyncIterator[RunningService]:
    models = tuple(SimulatedModel(name, load_seconds=LOAD_SECONDS) for name in NAMES)
    settings = SimulatedSettings(models=models, max_loaded_models=1, tokens=2)
    options = {
        "queue.max_swap_wait_seconds": swap_wait_seconds,
        "server.trusted_proxies": ["127.0.0.0/8"],
        "health.probe_interval_seconds": 0.05,
    }
    async with service_in_process(options, settings, seats=1) as service:
        await until_answering(service, 1)
        yield service


def moment(job: dict[str, Any], field: str) -> float:
    return datetime.fromisoformat(job[field]).timestamp()


async def submit(service: RunningService, owner: str, prompt: str, **fields: Any) -> str:
    body = {"prompt": prompt, "model": "one", **fields}
    async with service.session.post("/api/v1/prompt", json=body, headers={"X-Forwarded-For": owner}) as response:
        answer = await response.json()
        assert response.status == 202, answer
        return str(answer["id"])


async def test_four_hundred_contexts_of_one_owner_keep_anothers_request_for_three_loads_at_most() -> None:
    async with serving() as service:
        for number in range(400):
            await submit(service, MANY, f"context {number}", options={"num_ctx": 1_000 + number})
        # Each of them causes a load of its own; of what was asked before this only one is not answered.
        before = len(service.ollama.observations.prompts)
        await service.until(await submit(service, OTHER, "plain"), "completed")
        asked = service.ollama.observations.prompts
        assert asked.index("plain") < before + 3


async def test_each_owner_of_two_forces_one_load_in_the_time_that_it_has_to_wait() -> None:
    async with serving() as service:
        jobs = []
        for number in range(40):
            jobs.append(await submit(service, MANY, f"plain {number}"))
            jobs.append(await submit(service, OTHER, f"long {number}", options={"num_ctx": 8_000}))
        ended = await asyncio.gather(*(service.until(job, "completed") for job in jobs))
        loads = service.ollama.observations.loads.total()
        seconds = max(moment(job, "finished_at") for job in ended) - min(moment(job, "started_at") for job in ended)
        assert loads <= 2 * (1 + seconds / 2.0)
        contexts = [json.loads(seen.body).get("options") for seen in service.ollama.observations.seen]
        assert sum(before != after for before, after in pairwise(contexts)) + 1 == loads


async def test_eighty_jobs_of_four_models_need_four_loads() -> None:
    async with serving(swap_wait_seconds=60.0) as service:
        # All of them are there before any is answered.
        stall = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/generate", after_tokens=1, times=1))
        jobs = [await submit(service, MANY, f"job {number}", model=NAMES[number % 4]) for number in range(80)]
        stall.release()
        await asyncio.gather(*(service.until(job, "completed") for job in jobs))
        assert service.ollama.observations.loads == dict.fromkeys((f"{name}:latest" for name in NAMES), 1)


async def test_what_ollama_serves_with_one_runner_is_loaded_once() -> None:
    async with serving() as service:
        same: list[dict[str, Any]] = [{}, {"num_gpu": -1}, {"num_gpu": -9}]
        jobs = [await submit(service, MANY, f"job {number}", options=same[number % 3]) for number in range(12)]
        await asyncio.gather(*(service.until(job, "completed") for job in jobs))
        assert service.ollama.observations.loads.total() == 1
        status, answer = await service.call("GET", "/api/v1/prompts", params={"model": "ONE:local"})
        assert (status, answer["total"]) == (200, 12)
