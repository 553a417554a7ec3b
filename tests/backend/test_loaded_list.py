"""A server that is slow to tell what it has loaded is well; version and installed models say whether it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from service.api.context import CLOCK, POOL
from service.api.live.backend_shape import backend_fields
from service.backend.backend import Backend, build_backend
from service.backend.http.connections import Connections
from service.backend.probing import Probing
from service.clock import Clock
from service.config import load_config
from service.simulated import Fault, FaultKind, SimulatedServer
from tests.support.backends import until_answering, until_health
from tests.support.running import PATIENCE_SECONDS, QUICK, RunningService, service_in_process

PS, VERSION = "/api/ps", "/api/version"
SOON = {"health.probe_timeout_seconds": 0.1, "health.probe_interval_seconds": 0.02}
HUNG = Fault(kind=FaultKind.STALL, endpoint=PS)
BODY = {"model": "llama3.2", "prompt": "Why?", "stream": False}


class HandTurnedClock(Clock):
    """Time goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def now_ms(self) -> int:
        return self.now


@asynccontextmanager
async def probed(server: SimulatedServer) -> AsyncIterator[tuple[Probing, Backend, HandTurnedClock]]:
    """A backend that nobody but the test asks how it is."""
    config = load_config(environ={}, options={"backends": [{"name": "box", "url": server.url}], **SOON})
    clock = HandTurnedClock()
    async with Connections() as connections:
        backend = build_backend(config.backends[0], connections, config, clock)
        probing = Probing(config.health, clock, lambda: None)
        try:
            yield probing, backend, clock
        finally:
            probing._stop_listing(backend)


async def shown(service: RunningService) -> dict[str, Any]:
    """The backend as admins see it."""
    [backend] = service.app[POOL]
    return dict(backend_fields(backend, {}, service.app[CLOCK].now_ms()))


def state(backend: Backend) -> tuple[bool, str | None]:
    """Whether it counts as there, and why not."""
    return backend.is_answering, backend.trouble


async def asked_again(server: SimulatedServer, times: int = 2) -> None:
    """Wait until ``/api/ps`` was asked so many times more: what was asked before has then had no answer in time."""
    wanted = server.observations.requests[PS] + times
    async with asyncio.timeout(PATIENCE_SECONDS), aiohttp.ClientSession(server.url) as session:
        while server.observations.requests[PS] < wanted:
            await session.get("/simulated/state")


async def test_a_server_that_is_slow_to_tell_what_it_has_loaded_is_there_from_the_start() -> None:
    async with service_in_process(SOON, faults=[HUNG]) as service:
        await until_answering(service, 1)
        assert (await service.call("POST", "/api/generate", BODY))[0] == 200
        await asked_again(service.ollama)
        box = await shown(service)
        assert (box["state"], box["loaded_models"], box["loaded_models_age_seconds"]) == ("ok", [], None)
        assert "error" not in box


async def test_its_last_list_stands_while_it_does_not_tell_and_is_shown_with_its_age() -> None:
    async with service_in_process(SOON) as service:
        await service.call("POST", "/api/generate", BODY)
        while (await shown(service))["loaded_models"] != ["llama3.2:latest"]:
            await asked_again(service.ollama, 1)
        hung = service.ollama.arm(HUNG)
        versions = service.ollama.observations.requests[VERSION]
        await asked_again(service.ollama, 3)
        box = await shown(service)
        assert (box["state"], box["loaded_models"]) == ("ok", ["llama3.2:latest"])
        assert box["loaded_models_age_seconds"] >= 0
        # Whether it is there was asked on and on, and its jobs go on.
        assert service.ollama.observations.requests[VERSION] > versions
        assert (await service.call("POST", "/api/generate", BODY))[0] == 200
        hung.release()
        while "loaded_models_age_seconds" in await shown(service):
            await service.call("GET", "/health")


async def test_an_error_in_place_of_the_list_is_no_trouble_either() -> None:
    error = Fault(kind=FaultKind.ERROR, endpoint=PS, status=500, message="out of order")
    async with service_in_process(SOON, faults=[error]) as service:
        await until_answering(service, 1)
        await asked_again(service.ollama)
        assert (await shown(service))["state"] == "ok"


async def test_one_model_that_hangs_does_not_take_the_jobs_of_the_others() -> None:
    async with service_in_process(SOON) as service:
        # The second may have been loaded in place of the first, before both were known to fit.
        while len((await shown(service))["loaded_models"]) < 2:
            for model in ("llama3.2", "thinker"):
                await service.call("POST", "/api/generate", {**BODY, "model": model})
            await asked_again(service.ollama, 1)
        service.ollama.arm(HUNG)
        stall = service.stall(after_tokens=0, model="llama3.2")
        hanging = asyncio.create_task(service.call("POST", "/api/generate", BODY))
        await asked_again(service.ollama)
        status, answer = await service.call("POST", "/api/generate", {**BODY, "model": "thinker"})
        assert (status, answer["model"]) == (200, "thinker")
        stall.release()
        assert (await hanging)[0] == 200


async def test_after_three_minutes_without_a_list_it_is_trouble_until_there_is_one() -> None:
    async with SimulatedServer(QUICK) as server, probed(server) as (probing, backend, clock):
        await probing.probe(backend)
        assert (*state(backend), backend.loaded_list.is_old) == (True, None, False)
        hung = server.arm(HUNG)
        await probing.probe(backend)
        await asked_again(server, 1)
        assert backend.loaded_list.is_old
        clock.now += 179_999
        await probing.probe(backend)
        assert state(backend) == (True, None)
        clock.now += 1
        await probing.probe(backend)
        is_there, trouble = state(backend)
        assert not is_there
        assert trouble is not None
        assert "180 s" in trouble
        hung.release()
        await probing._list_loaded(backend)
        await probing.probe(backend)
        assert state(backend) == (True, None)


async def test_when_its_version_fails_it_is_trouble_at_once_and_the_minutes_count_from_its_return() -> None:
    async with SimulatedServer(QUICK) as server, probed(server) as (probing, backend, clock):
        server.arm(HUNG)
        await probing.probe(backend)
        await asked_again(server, 1)
        clock.now += 179_999
        away = server.arm(Fault(kind=FaultKind.ERROR, endpoint=VERSION, status=500, message="out of order"))
        await probing.probe(backend)
        assert state(backend) == (False, "out of order")
        away.remove()
        clock.now += 1_000_000
        await probing.probe(backend)
        assert state(backend) == (True, None)


async def test_a_server_that_returns_is_used_at_once_however_slow_its_list_is() -> None:
    async with service_in_process(SOON) as service:
        await until_answering(service, 1)
        await service.ollama.refuse_connections()
        await until_health(service, lambda health: health["backends"][0]["status"] == "absent")
        service.ollama.arm(HUNG)
        await service.ollama.accept_connections()
        await until_answering(service, 1)
        assert (await service.call("POST", "/api/generate", BODY))[0] == 200


async def test_a_question_that_was_under_way_is_asked_again_when_something_new_is_to_be_known() -> None:
    async with SimulatedServer(QUICK) as server, probed(server) as (probing, backend, _):
        hung = server.arm(Fault(kind=FaultKind.STALL, endpoint=PS, times=1))
        listing = probing._list_loaded(backend)
        await server.observations.until(lambda seen: seen.stalled == 1)
        assert probing._list_loaded(backend) is listing
        hung.release()
        await listing
        assert server.observations.requests[PS] == 2
