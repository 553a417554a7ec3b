"""Servers that several of the client's tests ask."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.simulated import SimulatedServer
from tests.client.servers import Place
from tests.support.client_service import SETTINGS
from tests.support.running import service_in_process


@pytest.fixture
async def bare() -> AsyncIterator[Place]:
    """A simulated Ollama."""
    async with SimulatedServer(SETTINGS) as ollama:
        yield Place(ollama.url, ollama)


@pytest.fixture(params=["corral", "ollama"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Corral in front of a simulated Ollama, and one without."""
    if request.param == "corral":
        async with service_in_process(settings=SETTINGS) as service:
            yield Place(service.url, service.ollama)
    else:
        async with SimulatedServer(SETTINGS) as ollama:
            yield Place(ollama.url, ollama)
