"""Servers that commands ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.simulated import SimulatedServer
from tests.support.running import QUICK, RunningService, service_in_process


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
