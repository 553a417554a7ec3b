"""A simulated Ollama and Corral in front of another: as processes of their own for tests that block, or in this one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from corral import Client
from service.simulated import ArmedFault, Fault, FaultKind, SimulatedServer
from tests.support.processes import running_service, simulated_process

_MODELS = '[{"name": "llama3"}, {"name": "llama3.2"}]'


class Place(NamedTuple):
    """Where a client asks, and the Ollama that is there or behind it, both in this process."""

    url: str
    ollama: SimulatedServer

    def stall(self) -> ArmedFault:
        return self.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))

    async def until_stalled(self, number: int) -> None:
        await self.ollama.observations.until(lambda seen: seen.stalled == number)


def threaded(place: Place, **attributes: Any) -> Client:
    """A client for threads, with these attributes assigned."""
    client = Client(place.url, model="llama3.2")
    for name, value in attributes.items():
        setattr(client, name, value)
    return client


class Servers(NamedTuple):
    """Where they are."""

    corral: str
    ollama: str


@contextmanager
def both_servers(folder: Path, *options: str) -> Iterator[Servers]:
    """Both, until the end of the block; ``options`` are the simulated Ollamas'."""
    ready: list[Servers] = []
    begun, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with AsyncExitStack() as running:
            given = ("--models", _MODELS, "--tokens", "8", "--load-seconds", "0", "--parallel", "8", *options)
            ollama = await running.enter_async_context(simulated_process(folder, *given))
            behind = await running.enter_async_context(simulated_process(folder, *given))
            service = await running.enter_async_context(running_service(folder, OLLAMA_URL=behind))
            ready.append(Servers(service.url, ollama))
            begun.set()
            await asyncio.to_thread(over.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        begun.wait()
        yield ready[0]
    finally:
        over.set()
        thread.join()
