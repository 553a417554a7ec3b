"""A service for the real clients: what they are pointed at instead of at Ollama."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.simulated import ArmedFault, Fault, FaultKind, SimulatedModel, SimulatedSettings
from tests.support.backends import until_answering
from tests.support.running import RunningService, service_in_process

ADMIN_KEY = "sk-admin-for-the-client-tests"
QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]
# A transparent picture of one point.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="  # a PNG
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SPELLINGS = ("llama3.2", "llama3.2:latest", "LLAMA3.2", "Llama3.2:Latest")
"""All of them are one model to Ollama, and each is echoed as it was written."""

SETTINGS = SimulatedSettings(
    models=(
        SimulatedModel("llama3.2", capabilities=("completion", "tools", "vision", "insert")),
        SimulatedModel("qwen3:4b", capabilities=("completion", "tools", "thinking")),
        SimulatedModel("nomic-embed-text", capabilities=("embedding",), embedding_length=768),
    ),
    parallel=4,
)
OPTIONS = {
    "auth.demo_admin_key": ADMIN_KEY,
    "retry.initial_seconds": 0.001,
    "retry.cap_seconds": 0.001,
    "retry.max_retries": 1,
    "breaker.failure_threshold": 1000,
}


@asynccontextmanager
async def service_for_clients(
    options: dict[str, Any] | None = None, *, version: str = SETTINGS.version
) -> AsyncIterator[RunningService]:
    """The service before an Ollama of this version, with options such as ``{"queue.heartbeat_seconds": 0.05}``."""
    async with service_in_process({**OPTIONS, **(options or {})}, replace(SETTINGS, version=version)) as service:
        await until_answering(service, 1)
        yield service


def arm(service: RunningService, kind: FaultKind, endpoint: str, **fields: Any) -> ArmedFault:
    """Have this go wrong at this endpoint."""
    return service.ollama.arm(Fault(kind=kind, endpoint=endpoint, **fields))


CUTS = (FaultKind.RUNNER_KILLED, FaultKind.NO_DONE, FaultKind.RESET, FaultKind.HANG_UP)
"""The ways in which Ollama breaks a stream off."""


async def read(stream: Any, found: list[Any] | None = None) -> list[Any]:
    """The events of a stream; those that came before an error are in ``found``."""
    events = found if found is not None else []
    async for event in stream:
        events.append(event)
    return events


async def failures(service: RunningService) -> list[str]:
    """Why the jobs have failed, once all of them have."""
    _, listed = await service.call("GET", "/api/v1/prompts")
    return [(await service.until(job["id"], "failed"))["error"]["message"] for job in listed["prompts"]]


async def ran(*command: str, folder: Path) -> str:
    """What a command said; it must end with 0."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode(errors="replace")
    assert process.returncode == 0, f"{' '.join(command)}\n{said}"
    return said
