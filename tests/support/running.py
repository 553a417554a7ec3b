"""The whole service in this process, on a port of its own, with a database of its own and a simulated Ollama."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from service.api.access.failed_sign_ins import FAILED_SIGN_INS
from service.api.context import HUB, JOBS
from service.api.http.fast_router import FastRouterRunner
from service.api.http.middlewares import AccessLogger
from service.app import build_app
from service.config import Config, load_config
from service.jobs import Jobs
from service.live.hub import Hub
from service.simulated import ArmedFault, Fault, FaultKind, SimulatedModel, SimulatedServer, SimulatedSettings

PATIENCE_SECONDS = 60.0
"""For what should happen at once: only a test that fails waits so long."""

MODELS = (
    SimulatedModel("llama3.2", capabilities=("completion", "tools")),
    SimulatedModel("thinker", ("completion", "thinking")),
)
QUICK = SimulatedSettings(models=MODELS, parallel=8, tokens=20)


@dataclass(frozen=True)
class RunningService:
    """A service that serves. ``session`` begins at its address."""

    url: str
    config: Config
    session: aiohttp.ClientSession
    ollama: SimulatedServer
    app: web.Application
    runner: web.AppRunner

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def jobs(self) -> Jobs:
        return self.app[JOBS]

    @property
    def hub(self) -> Hub:
        return self.app[HUB]

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """Status and decoded answer."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        async with self.session.request(method, path, data=data, **options) as response:
            return response.status, await response.json(content_type=None)

    async def submit(self, prompt: str = "Why is the sky blue?", **fields: Any) -> str:
        """The id of a new job."""
        status, answer = await self.call("POST", "/api/v1/prompt", {"prompt": prompt, **fields})
        assert status == 202, answer
        return str(answer["id"])

    async def until(self, job_id: str, wanted: str, **options: Any) -> dict[str, Any]:
        """Wait for a job to have a status."""
        known = ""
        while known != wanted:
            query = {"wait": str(PATIENCE_SECONDS), "status": known} if known else {}
            _, answer = await self.call("GET", f"/api/v1/prompt/{job_id}/status", params=query, **options)
            before, known = known, answer["status"]
            assert known != before, f"the job stays {known} and does not become {wanted}"
        return dict(answer)

    async def look(self, job_id: str, is_right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Look at a job until what is seen is right."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                _, answer = await self.call("GET", f"/api/v1/prompt/{job_id}/status")
                if is_right(answer):
                    return dict(answer)

    async def finished(self, prompt: str = "Why is the sky blue?", **fields: Any) -> str:
        """The id of a job that is completed."""
        job_id = await self.submit(prompt, **fields)
        await self.until(job_id, "completed")
        return job_id

    def stall(self, after_tokens: int = 3, **matching: Any) -> ArmedFault:
        """Let answers stop in the middle until the fault is released."""
        return self.ollama.arm(
            Fault(kind=FaultKind.STALL, endpoint="/api/generate", after_tokens=after_tokens, **matching)
        )

    async def stop(self) -> None:
        """What SIGTERM does, without the drain."""
        await self.runner.cleanup()


@asynccontextmanager
async def service_in_process(
    options: dict[str, Any] | None = None,
    settings: SimulatedSettings = QUICK,
    *,
    seats: int = 5,
    folder: Path | None = None,
    faults: Iterable[Fault] = (),
    access_log: bool = False,
) -> AsyncIterator[RunningService]:
    """The service with these settings (such as ``{"server.max_body": 2048}``) until the end of the block. ``faults``
    are there before it starts. ``access_log``: as ``python -m service`` writes it. Answers to unknown keys are not held
    back.
    """
    async with SimulatedServer(settings) as ollama:
        for fault in faults:
            ollama.arm(fault)
        with tempfile.TemporaryDirectory(prefix="corral-test-") as temporary:
            backend = {"name": "simulated", "url": ollama.url, "concurrency": seats}
            config = load_config(
                environ={},
                options={
                    "backends": [backend],
                    "database.path": str((folder or Path(temporary)) / "queue.db"),
                    "server.drain_seconds": 0,
                    **(options or {}),
                },
            )
            async with _serving(config, ollama, access_log=access_log) as service:
                yield service


@asynccontextmanager
async def _serving(config: Config, ollama: SimulatedServer, *, access_log: bool) -> AsyncIterator[RunningService]:
    app = build_app(config)
    log = logging.getLogger("service.access") if access_log else None
    runner = FastRouterRunner(app, access_log=log, access_log_class=AccessLogger, shutdown_timeout=5.0)
    await runner.setup()
    app[FAILED_SIGN_INS].first_seconds = 0.0
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(url) as session:
            yield RunningService(url, config, session, ollama, app, runner)
    finally:
        await runner.cleanup()
