"""What hangs in an Ollama that answers otherwise: a runner, one of its seats, `/api/ps` (wire contract 4.5, 6)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from service.simulated import Fault, FaultKind, SimulatedServer
from tests.support.simulation import TINY, json_lines, simulated_ollama

SETTINGS = replace(TINY, parallel=2, tokens=4, version="0.32.10")
PATHS: dict[str, dict[str, Any]] = {
    "/api/generate": {"model": "tiny1", "prompt": "x"},
    "/api/chat": {"model": "tiny1", "messages": [{"role": "user", "content": "x"}]},
    "/api/embed": {"model": "embed", "input": "x"},
}


def _call(session: aiohttp.ClientSession, path: str = "/api/generate", **changes: Any) -> asyncio.Task[tuple[int, Any]]:
    async def ask() -> tuple[int, Any]:
        async with session.post(path, json=PATHS[path] | changes) as response:
            return response.status, json_lines(await response.read())

    return asyncio.create_task(ask())


async def _leave(*calls: asyncio.Task[Any]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


async def _unload(session: aiohttp.ClientSession, model: str = "tiny1") -> None:
    async with session.post("/api/generate", json={"model": model, "keep_alive": 0}) as response:
        assert (await response.json())["done_reason"] == "unload"


async def _loaded(session: aiohttp.ClientSession) -> list[str]:
    async with session.get("/api/ps") as response:
        return [model["name"] for model in (await response.json())["models"]]


@pytest.mark.parametrize("fault", [FaultKind.DELAY_HEADERS, FaultKind.STALL])
async def test_a_ping_holds_up_ps_and_neither_version_nor_tags(fault: FaultKind) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        ping = server.arm(Fault(kind=fault, endpoint="/api/ps", seconds=3600, times=1))
        slow = asyncio.create_task(_loaded(session))
        for path in ("/api/version", "/api/tags"):
            async with session.get(path) as response:
                assert response.status == 200
        assert (await _call(session))[0] == 200
        assert (ping.applied, slow.done()) == (1, False)
        ping.release()
        if fault is FaultKind.STALL:
            assert await slow == ["tiny1:latest"]
        await _leave(slow)
        assert await _loaded(session) == ["tiny1:latest"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_hanging_runner_answers_nobody_until_it_is_unloaded(path: str) -> None:
    model = PATHS[path]["model"]
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.RUNNER_HANGS, model=str(model), times=1))
        calls = [_call(session, path) for _ in range(3)]
        await server.observations.until(lambda seen: seen.in_flight == 3 and seen.stalled > 0)
        # Others are well, and so are the lists.
        assert (await _call(session, model="tiny2"))[0] == 200
        assert f"{model}:latest" in await _loaded(session)
        await _unload(session, str(model))
        assert f"{model}:latest" in await _loaded(session)
        await _leave(*calls)
        await server.observations.until(lambda seen: seen.unloads.total() == 1)
        assert (await _call(session, path))[0] == 200
        assert server.observations.loads[f"{model}:latest"] == 2


async def test_a_runner_that_hangs_stops_what_it_was_writing() -> None:
    async with simulated_ollama(replace(SETTINGS, tokens=200, token_seconds=0.0005)) as (server, session):
        pause = server.arm(Fault(kind=FaultKind.STALL, after_tokens=2, times=1))
        writing = _call(session)
        await server.observations.until(lambda seen: seen.stalled == 1)
        hang = server.arm(Fault(kind=FaultKind.RUNNER_HANGS, times=1))
        silent = _call(session)
        await server.observations.until(lambda seen: seen.stalled == 2)
        pause.release()
        await server.observations.until(lambda seen: seen.stalled == 1)
        await server.observations.until(lambda seen: seen.stalled == 2)
        hang.release()
        assert [reply[-1]["done"] for _, reply in await asyncio.gather(writing, silent)] == [True, True]


async def test_an_unload_at_once_leaves_ps_while_the_call_is_still_silent() -> None:
    async with simulated_ollama(replace(SETTINGS, max_loaded_models=1)) as (server, session):
        hang = server.arm(Fault(kind=FaultKind.RUNNER_HANGS, times=1))
        server.arm(Fault(kind=FaultKind.UNLOAD_AT_ONCE))
        silent = _call(session)
        await server.observations.until(lambda seen: seen.stalled == 1)
        await _unload(session)
        assert (await _loaded(session), silent.done()) == ([], False)
        # The next runner is well, and there is room for it.
        assert (await _call(session))[0] == 200
        assert (await _call(session, model="tiny2"))[0] == 200
        assert not silent.done()
        hang.release()
        assert (await silent)[1][-1]["done"] is True


async def _lose_seats(server: SimulatedServer, session: aiohttp.ClientSession, count: int) -> None:
    lost = server.arm(Fault(kind=FaultKind.SEAT_LOST, after_tokens=2, times=count))
    for _ in range(count):
        assert "error parsing tool call" in (await _call(session))[1][-1]["error"]
    assert lost.applied == count


async def test_a_seat_that_is_lost_is_not_given_back_and_the_rest_serve_on() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        await _lose_seats(server, session, 1)
        replies = await asyncio.gather(*(_call(session) for _ in range(4)))
        assert {status for status, _ in replies} == {200}
        assert server.observations.peak_running["tiny1:latest"] == 1


async def test_without_seats_every_request_hangs_until_the_model_is_unloaded() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        await _lose_seats(server, session, 2)
        waiting = _call(session)
        await server.observations.until(lambda seen: seen.in_flight == 1)
        assert await _loaded(session) == ["tiny1:latest"]
        await _unload(session)
        # The request that waits still holds the runner.
        assert await _loaded(session) == ["tiny1:latest"]
        await _leave(waiting)
        await server.observations.until(lambda seen: seen.unloads.total() == 1)
        assert (await _call(session))[0] == 200
        assert server.observations.loads == {"tiny1:latest": 2}


async def test_a_whole_reply_loses_its_seat_with_a_500() -> None:
    async with simulated_ollama(replace(SETTINGS, parallel=1)) as (server, session):
        server.arm(Fault(kind=FaultKind.SEAT_LOST, after_tokens=2, times=1))
        assert (await _call(session, "/api/chat", stream=False))[0] == 500
        waiting = _call(session)
        await server.observations.until(lambda seen: seen.in_flight == 1)
        await _unload(session)
        await _leave(waiting)
        assert (await _call(session))[0] == 200
