"""A service in this process with a simulated Ollama that gives every prompt back, so that half an answer is seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corral.breaker import Breaker
from service.api.context import POOL
from service.simulated import ArmedFault, Fault, FaultKind, SimulatedModel, SimulatedServer, SimulatedSettings
from tests.support.backends import until_answering
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

MODEL = "llama3.2"
PROMPT = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich 🎉 und 日本語 auch"
ECHO = SimulatedSettings(models=(SimulatedModel(MODEL), SimulatedModel("other")), parallel=8, answer_style="echo")
AT_ONCE = {"retry.initial_seconds": 0.01, "retry.cap_seconds": 0.02, "health.probe_interval_seconds": 0.05}
"""Nobody waits longer than a test needs. What a fault itself takes, such as a time limit, is set by its row."""


@dataclass(frozen=True)
class Stage:
    """The service and its Ollama."""

    service: RunningService

    @property
    def ollama(self) -> SimulatedServer:
        return self.service.ollama

    @property
    def breaker(self) -> Breaker:
        [backend] = self.service.app[POOL]
        return backend.breakers.server

    @property
    def states(self) -> dict[str, str]:
        """The breakers of models that have failed, by name."""
        [backend] = self.service.app[POOL]
        return {model.removesuffix(":latest"): str(one.state) for model, one in backend.breakers.failing.items()}

    def arm(self, kind: FaultKind, times: int | None = 1, **fields: Any) -> ArmedFault:
        """Have this go wrong with the next request for :data:`PROMPT`, or so many."""
        return self.ollama.arm(Fault(kind=kind, prompt=PROMPT, times=times, **fields))

    async def submit(self, prompt: str = PROMPT, **fields: Any) -> str:
        return await self.service.submit(prompt, model=MODEL, **fields)

    async def ends(self, job_id: str, status: str) -> dict[str, Any]:
        """Wait until a job is final, and that it is what it should be."""
        final = ("completed", "failed", "cancelled")
        job = await self.service.look(job_id, lambda job: job["status"] in final)
        assert job["status"] == status, job
        return job

    async def completes(self, job_id: str, prompt: str = PROMPT) -> dict[str, Any]:
        """Wait until a job is completed, and that its answer is whole."""
        job = await self.ends(job_id, "completed")
        _, result = await self.service.call("GET", f"/api/v1/prompt/{job_id}/result")
        assert result["result"] == prompt
        return job

    async def is_well(self) -> None:
        """The fault has ended: work goes on by itself, and nothing is left over."""
        await self.completes(await self.submit("after the fault"), "after the fault")
        for status in ("queued", "processing"):
            _, page = await self.service.call("GET", "/api/v1/prompts", params={"status": status})
            assert page["prompts"] == []
        assert len(self.service.jobs.ledger.running) == 0

    async def follow(self, job_id: str) -> Follower:
        """Somebody who watches a job by server-sent events."""
        follower = Follower()
        follower.reading = asyncio.create_task(self._read_events(job_id, follower))
        return follower

    async def _read_events(self, job_id: str, follower: Follower) -> None:
        async with self.service.session.get(f"/api/v1/prompt/{job_id}/stream") as response:
            assert response.status == 200
            name = ""
            async for line in response.content:
                text = line.decode().rstrip("\n")
                if text.startswith("event: "):
                    name = text.removeprefix("event: ")
                elif text.startswith("data: "):
                    await follower.take(name, json.loads(text.removeprefix("data: ")))


class Follower:
    """What a follower was told."""

    def __init__(self) -> None:
        self.reading: asyncio.Task[None] | None = None
        self.restarts = 0
        self.is_done = False
        self.text = ""
        self._news = asyncio.Condition()

    async def take(self, name: str, event: dict[str, Any]) -> None:
        if name == "output":
            self.text += event["data"]
        elif name == "restart":
            self.restarts += 1
            self.text = ""
        elif name == "done":
            self.is_done = True
        async with self._news:
            self._news.notify_all()

    async def sees_output(self) -> None:
        """Wait until it has seen the beginning of an answer."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: bool(self.text))

    async def ends(self) -> None:
        """Wait until its stream has ended."""
        assert self.reading is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.reading
        assert self.is_done


@asynccontextmanager
async def stage(
    options: dict[str, Any] | None = None,
    *,
    seats: int = 2,
    folder: Path | None = None,
    **settings: Any,
) -> AsyncIterator[Stage]:
    """The service, once its Ollama is known to answer."""
    configured = {**AT_ONCE, **(options or {})}
    async with service_in_process(configured, replace(ECHO, **settings), seats=seats, folder=folder) as service:
        await until_answering(service, 1)
        yield Stage(service)
