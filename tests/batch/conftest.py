"""Servers that batches ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from service.simulated import SimulatedServer
from tests.support.command_line import Ran, ran
from tests.support.running import QUICK, RunningService, service_in_process

Batch = Callable[..., Awaitable[Ran]]


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    """Corral, which asks for no keys."""
    async with service_in_process() as running:
        yield running


@pytest.fixture
async def bare() -> AsyncIterator[SimulatedServer]:
    """A bare Ollama."""
    async with SimulatedServer(QUICK) as ollama:
        yield ollama


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """Runs a batch of an input in this folder."""

    async def run(source: Path | str, *options: str, url: str = "", output: str = "out.jsonl", **how: str) -> Ran:
        at = ("--url", url) if url else ()
        return await ran("batch", str(source), "-o", str(tmp_path / output), *at, *options, **how)

    return run
