"""What several tests of the simulated Ollama need: one that serves, and a client for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from service.simulated import RECORDED_MODELS, SimulatedServer, SimulatedSettings

TINY = SimulatedSettings(models=RECORDED_MODELS, max_loaded_models=3)


@asynccontextmanager
async def simulated_ollama(
    settings: SimulatedSettings = TINY,
) -> AsyncIterator[tuple[SimulatedServer, aiohttp.ClientSession]]:
    """A running server, and a session whose addresses begin at it."""
    async with SimulatedServer(settings) as server, aiohttp.ClientSession(server.url) as session:
        yield server, session


def json_lines(body: bytes) -> list[Any]:
    """The objects of an NDJSON body, in which no line may be blank."""
    return [json.loads(line) for line in body.removesuffix(b"\n").split(b"\n")] if body else []


def sse_events(body: bytes) -> list[tuple[str | None, Any]]:
    """The events of an SSE body: the event's name where it has one, and its data, decoded unless it is `[DONE]`."""
    events: list[tuple[str | None, Any]] = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        if not block:
            continue
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        events.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return events
