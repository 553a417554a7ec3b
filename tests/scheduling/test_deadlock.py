"""Ollama's scheduler waits for ever for a model that is kept busy to make room (seen on a real server); ours does not
bring it there.

The same callers, with the same requests, go to the simulated Ollama directly and then through the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from service.simulated import SimulatedModel, SimulatedServer, SimulatedSettings
from tests.support.backends import backends, until_answering
from tests.support.running import PATIENCE_SECONDS, service_in_process

ONE_FITS = SimulatedSettings(
    models=(SimulatedModel("one", load_seconds=0.01), SimulatedModel("two", load_seconds=0.01)),
    max_loaded_models=1,
    parallel=2,
    tokens=2,
    token_seconds=0.005,
)
CALLERS = 8
MANY = 200
"""So many requests for one model pass the one that waits for the other: it is not going to get its turn."""


class Callers:
    """Programs that each send the next request as soon as the last is answered, so that their model is never idle."""

    def __init__(self, url: str, model: str, **fields: Any) -> None:
        self._url = url
        self._request = {"model": model, "prompt": "short", "stream": False, **fields}
        self.answered = 0
        self._news = asyncio.Condition()
        self._is_over = False

    async def keep_busy(self, until: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._call())
            try:
                await until()
            finally:
                self._is_over = True

    async def have_been_answered(self, times: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: self.answered >= times)

    async def _call(self) -> None:
        async with aiohttp.ClientSession(self._url) as session:
            while not self._is_over:
                assert await ask(session, self._request)
                self.answered += 1
                async with self._news:
                    self._news.notify_all()


async def ask(session: aiohttp.ClientSession, request: dict[str, Any]) -> str:
    async with session.post("/api/generate", json=request) as response:
        answer = await response.json(content_type=None)
        assert response.status == 200, answer
        return str(answer["response"])


async def test_without_a_queue_a_busy_model_keeps_another_out_for_ever() -> None:
    async with SimulatedServer(ONE_FITS) as ollama, aiohttp.ClientSession(ollama.url) as session:
        callers = Callers(ollama.url, "one")
        other: asyncio.Task[str] | None = None

        async def starve() -> None:
            nonlocal other
            await callers.have_been_answered(CALLERS)
            other = asyncio.create_task(ask(session, {"model": "two", "prompt": "the other", "stream": False}))
            await ollama.observations.until(lambda seen: "the other" in seen.prompts)
            await callers.have_been_answered(callers.answered + MANY)
            assert not other.done()

        await callers.keep_busy(starve)
        assert other is not None
        # It is let in when the others have had enough.
        assert await other


async def test_without_a_queue_a_keep_alive_hangs_every_load_even_when_nobody_is_left() -> None:
    async with SimulatedServer(ONE_FITS) as ollama, aiohttp.ClientSession(ollama.url) as session:
        callers = Callers(ollama.url, "one", keep_alive="1h")
        others: list[asyncio.Task[str]] = []

        async def starve() -> None:
            await callers.have_been_answered(CALLERS)
            others.append(asyncio.create_task(ask(session, {"model": "two", "prompt": "p", "stream": False})))
            await callers.have_been_answered(callers.answered + MANY)

        await callers.keep_busy(starve)
        # Nothing runs any more, and what is loaded is served as ever; but the load does not come.
        assert await ask(session, {"model": "one", "prompt": "p", "stream": False, "keep_alive": "1h"})
        assert ollama.observations.running.total() == 0
        assert [runner.model.name for runner in ollama.scheduler.loaded] == ["one:latest"]
        assert ollama.observations.loads.total() == 1
        assert not others[0].done()
        others[0].cancel()


async def test_through_the_service_the_other_model_has_its_turn_under_the_same_load() -> None:
    options = {"queue.max_swap_wait_seconds": 0.1}
    async with (
        SimulatedServer(ONE_FITS) as ollama,
        service_in_process({**backends(ollama), **options}) as service,
    ):
        await until_answering(service, 1)
        for fields in ({}, {"keep_alive": "1h"}):
            callers = Callers(service.url, "one", **fields)
            loads = ollama.observations.loads["two:latest"]

            async def be_answered(callers: Callers = callers) -> None:
                await callers.have_been_answered(CALLERS)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    assert await ask(service.session, {"model": "two", "prompt": "p", "stream": False})
                # The callers were still there all the time, and go on.
                await callers.have_been_answered(callers.answered + CALLERS)

            await callers.keep_busy(be_answered)
            assert ollama.observations.loads["two:latest"] == loads + 1
        assert ollama.observations.aborted_loads == 0
