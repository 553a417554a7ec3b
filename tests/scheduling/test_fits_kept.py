"""What a backend was seen to hold at once is known after a restart, of the service and of the backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.api.context import CLOCK, POOL
from service.backend.fitting import FittingSets
from service.simulated import SimulatedModel, SimulatedServer, SimulatedSettings
from tests.support.backends import backends, until_answering
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

A, B, C = "a:latest", "b:latest", "c:latest"
PAIR, ALL = frozenset({A, B}), frozenset({A, B, C})
ROOM_FOR_TWO = SimulatedSettings(
    models=tuple(SimulatedModel(name) for name in (A, B, C)), max_loaded_models=2, tokens=2, version="0.24.0"
)


def at(server: SimulatedServer) -> dict[str, Any]:
    return {"health.probe_interval_seconds": 0.05, **backends(server)}


async def until_known(service: RunningService, is_right: Callable[[FittingSets], bool]) -> FittingSets:
    """Wait until what is known of the backend is right."""
    [backend] = service.app[POOL]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_right(backend.placement.fitting):
            await service.call("GET", "/health")
    return backend.placement.fitting


async def learn(service: RunningService) -> set[frozenset[str]]:
    """Let the service see that two fit, and know that three do not. Returns which it saw together."""
    await service.finished(model=A)
    await service.finished(model=B)
    await until_known(service, lambda known: known.sets == [PAIR])
    await service.finished(model=C)
    known = await until_known(service, lambda known: any(C in pair for pair in known.sets))
    # A look that falls between the unload and the load does not show it.
    known.refuse(ALL, service.app[CLOCK].now_ms())
    return set(known.sets)


def facts(known: FittingSets) -> tuple[set[frozenset[str]], set[frozenset[str]], set[frozenset[str]]]:
    return set(known.sets), set(known.old), set(known.unfit)


async def test_what_was_seen_by_one_service_is_old_knowledge_of_the_next(tmp_path: Path) -> None:
    async with SimulatedServer(ROOM_FOR_TWO) as server:
        options, port = at(server), server.port
        async with service_in_process(options, folder=tmp_path) as service:
            seen = await learn(service)
    async with SimulatedServer(ROOM_FOR_TWO, port=port), service_in_process(options, folder=tmp_path) as service:
        await until_answering(service, 1)
        assert facts(await until_known(service, lambda known: bool(known.old))) == (set(), seen, {ALL})


async def test_another_version_between_two_services_leaves_only_what_fitted(tmp_path: Path) -> None:
    async with SimulatedServer(ROOM_FOR_TWO) as server:
        options, port = at(server), server.port
        async with service_in_process(options, folder=tmp_path) as service:
            await learn(service)
    newer = replace(ROOM_FOR_TWO, version="0.33.0")
    for settings in (newer, ROOM_FOR_TWO):
        # Also with the first version again: what did not fit before is forgotten.
        async with SimulatedServer(settings, port=port), service_in_process(options, folder=tmp_path) as service:
            await until_answering(service, 1)
            sets, old, unfit = facts(await until_known(service, lambda known: bool(known.old)))
            assert (sets, PAIR in old, unfit) == (set(), True, set())


async def test_a_model_that_was_pulled_anew_is_another(tmp_path: Path) -> None:
    async with SimulatedServer(ROOM_FOR_TWO) as server:
        options, port = at(server), server.port
        async with service_in_process(options, folder=tmp_path) as service:
            await learn(service)
    anew = replace(ROOM_FOR_TWO, models=(SimulatedModel(A, digest="0" * 64), SimulatedModel(B), SimulatedModel(C)))
    async with SimulatedServer(anew, port=port), service_in_process(options, folder=tmp_path) as service:
        await until_answering(service, 1)
        [backend] = service.app[POOL]
        assert not any(A in known for known in (*backend.placement.fitting.old, *backend.placement.fitting.unfit))


async def test_what_was_seen_before_a_backend_was_away_is_old_and_a_new_version_may_hold_more(tmp_path: Path) -> None:
    async with SimulatedServer(ROOM_FOR_TWO) as server, service_in_process(at(server), folder=tmp_path) as service:
        seen = await learn(service)
        await server.stop()
        await until_answering(service, 0)
        for version, unfit in (("0.24.0", {ALL}), ("0.33.0", set[frozenset[str]]())):
            async with SimulatedServer(replace(ROOM_FOR_TWO, version=version), port=server.port):
                await until_answering(service, 1)
                [backend] = service.app[POOL]
                assert facts(backend.placement.fitting) == (set(), seen, unfit)
            await until_answering(service, 0)
