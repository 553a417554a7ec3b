"""While every backend is away, lists are what was told last, also after a restart, and say how old they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.api.context import CLOCK
from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedServer, SimulatedSettings
from tests.support.backends import until_answering
from tests.support.raw_server import Exchange, raw_server, whole
from tests.support.running import RunningService, service_in_process

AGE = "X-List-Age-Seconds"
NAMESPACED = "huggingface/some.Thing:Q4_K_M"
HOUR_MS = 3_600_000
LISTS = ("/api/tags", "/v1/models")


def models(*names: str, day: int = 1) -> SimulatedSettings:
    return SimulatedSettings(
        models=tuple(SimulatedModel(name, modified_at=f"2026-11-{day:02}T10:00:00Z") for name in names),
        version="0.33.0",
    )


def boxes(*servers: SimulatedServer, **fields: Any) -> dict[str, Any]:
    members = [{"name": f"box{at}", "url": server.url, **fields} for at, server in enumerate(servers)]
    return {"health.probe_interval_seconds": 0.05, "backends": members}


@asynccontextmanager
async def two_servers() -> AsyncIterator[tuple[SimulatedServer, SimulatedServer]]:
    """The first has llama3.2 and shared; the second, shared and one with a namespace, which are newer."""
    async with (
        SimulatedServer(models("llama3.2", "shared")) as one,
        SimulatedServer(models("shared", NAMESPACED, day=2)) as two,
    ):
        yield one, two


async def ask(service: RunningService, path: str) -> tuple[int, Any, str | None]:
    """Status, answer and age of a list."""
    async with service.session.get(path) as reply:
        return reply.status, await reply.json(content_type=None), reply.headers.get(AGE)


async def told(service: RunningService, count: int) -> list[Any]:
    """The lists as so many backends tell them, which have no age."""
    await until_answering(service, count)
    lists = [await ask(service, path) for path in LISTS]
    assert [(status, age) for status, _, age in lists] == [(200, None)] * 2
    return [answer for _, answer, _ in lists]


async def test_while_all_are_away_lists_are_the_last_ones_and_say_their_age() -> None:
    async with two_servers() as (one, two), service_in_process(boxes(one, two)) as service:
        before = await told(service, 2)
        await one.stop()
        await two.stop()
        await until_answering(service, 0)
        for path, answer in zip(LISTS, before, strict=True):
            status, last, age = await ask(service, path)
            assert (status, last) == (200, answer)
            assert age is not None
            assert age.isdigit()
        for name in ("LLAMA3.2", NAMESPACED):
            status, entry, age = await ask(service, f"/v1/models/{name}")
            assert (status, entry["id"]) == (200, name)
            assert age is not None
        # Another may be there by now, and a job for it would be taken.
        for name in ("unknown", "some/unknown"):
            status, answer, age = await ask(service, f"/v1/models/{name}")
            assert (status, answer["error"]["type"], age) == (503, "api_error", None)


async def test_the_last_lists_are_there_after_a_restart_with_every_field(tmp_path: Path) -> None:
    async with SimulatedServer(models("llama3.2", "tiny")) as server:
        options = boxes(server)
        async with service_in_process(options, folder=tmp_path) as service:
            before = await told(service, 1)
    async with service_in_process(options, folder=tmp_path) as service:
        for path, answer in zip(LISTS, before, strict=True):
            status, last, age = await ask(service, path)
            assert (status, last) == (200, answer)
            assert age is not None
        # The fields stand in the order in which Ollama sent them, too.
        assert [list(entry) for entry in (await ask(service, "/api/tags"))[1]["models"]] == [
            list(entry) for entry in before[0]["models"]
        ]
        assert {"capabilities", "details"} <= set(before[0]["models"][0])
        _, own, _ = await ask(service, "/api/models")
        assert [(entry["name"], entry["is_available"]) for entry in own["models"]] == [
            ("llama3.2:latest", False),
            ("tiny:latest", False),
        ]


async def test_lists_of_several_backends_are_merged_after_a_restart_as_they_were(tmp_path: Path) -> None:
    async with two_servers() as (one, two):
        options = boxes(one, two)
        async with service_in_process(options, folder=tmp_path) as service:
            before = await told(service, 2)
    async with service_in_process(options, folder=tmp_path) as service:
        assert [answer for _, answer, _ in [await ask(service, path) for path in LISTS]] == before


async def test_what_the_configuration_hides_is_in_no_last_list(tmp_path: Path) -> None:
    async with SimulatedServer(models("llama3.2", "secret")) as server:
        async with service_in_process(boxes(server), folder=tmp_path) as service:
            await told(service, 1)
        options = boxes(server, models=["LLAMA3.2"])
    async with service_in_process(options, folder=tmp_path) as service:
        assert [entry["name"] for entry in (await ask(service, "/api/tags"))[1]["models"]] == ["llama3.2:latest"]
        assert [entry["id"] for entry in (await ask(service, "/v1/models"))[1]["data"]] == ["llama3.2:latest"]
        assert (await ask(service, "/v1/models/secret"))[0] == 503


async def test_a_list_grows_older_until_a_backend_tells_another(tmp_path: Path) -> None:
    async with SimulatedServer(models("llama3.2")) as server:
        options = boxes(server)
        async with service_in_process(options, folder=tmp_path) as service:
            await told(service, 1)
            await server.refuse_connections()
            await until_answering(service, 0)
            clock = service.app[CLOCK]
            clock.not_before(clock.now_ms() + HOUR_MS)
            _, _, age = await ask(service, "/api/tags")
            assert age is not None
            assert int(age) >= 3600
            await server.accept_connections()
            await told(service, 1)


async def test_a_backend_that_answers_takes_the_place_of_what_another_told_before(tmp_path: Path) -> None:
    async with two_servers() as (one, two):
        options = boxes(one, two)
        async with service_in_process(options, folder=tmp_path) as service:
            await told(service, 2)
        await two.stop()
        async with service_in_process(options, folder=tmp_path) as service:
            await until_answering(service, 1)
            names = {"llama3.2:latest", "shared:latest"}
            _, answer, age = await ask(service, "/api/tags")
            assert ({entry["name"] for entry in answer["models"]}, age) == (names, None)
            # No job for the others is accepted now, so they are not offered either.
            _, own, _ = await ask(service, "/api/models")
            assert {entry["name"] for entry in own["models"]} == names
            assert (await service.call("POST", "/api/v1/prompt", {"prompt": "x", "model": NAMESPACED}))[0] == 404
            await one.refuse_connections()
            await until_answering(service, 0)
            _, answer, _ = await ask(service, "/api/tags")
            assert {entry["name"] for entry in answer["models"]} == {*names, NAMESPACED}
            await service.submit(model=NAMESPACED)


async def test_a_lone_backend_that_gives_no_list_has_its_last_one_with_its_age() -> None:
    async with service_in_process() as service:
        await told(service, 1)
        for path in LISTS:
            service.ollama.arm(Fault(kind=FaultKind.NOT_OLLAMA, endpoint=path, times=1))
            status, _, age = await ask(service, path)
            assert status == 200
            assert age is not None


async def test_a_list_that_was_never_told_is_503_beside_one_that_was(tmp_path: Path) -> None:
    nowhere = {"backends": [{"name": "box", "url": "http://127.0.0.1:9"}]}
    async with SimulatedServer(models("llama3.2")) as server:
        async with service_in_process(boxes(server), folder=tmp_path) as service:
            await told(service, 1)
        known = boxes(server)["backends"]
    async with service_in_process(nowhere, folder=tmp_path) as service:
        assert [(await ask(service, path))[0] for path in LISTS] == [503, 503]
    both = {"backends": [*nowhere["backends"], {**known[0], "name": "other"}]}
    async with service_in_process(both, folder=tmp_path) as service:
        assert [(await ask(service, path))[0] for path in LISTS] == [200, 200]


async def test_a_call_right_after_the_start_waits_for_the_first_look_at_the_backend() -> None:
    """Of which a part is answered already: the backend is neither there nor away yet."""
    asked, listed = asyncio.Event(), asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/api/ps":
            asked.set()
            await listed.wait()
        await exchange.send(whole(b'{"version": "0.24.0", "models": []}'))

    async with raw_server(answer) as backend:
        options = {"backends": [{"name": "raw", "url": backend.url, "concurrency": 1}]}
        async with service_in_process(options) as service:
            await asked.wait()
            showing = asyncio.ensure_future(service.call("POST", "/api/show", {"model": "llama3.2"}))
            # It is looked at meanwhile whether it is there.
            await service.call("GET", "/health")
            assert not showing.done()
            listed.set()
            assert (await showing)[0] == 200
