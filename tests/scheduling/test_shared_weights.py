"""Names of the same weights share one runner, as they do in Ollama (wire contract 4.4)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.api.context import CLOCK, POOL
from service.app import RELOADING
from service.backend.breakers import Evidence
from service.backend.choice import choose
from service.backend.models import InstalledModel, Listed, weights_of
from service.backend.placement import Placement
from service.backend.sharing import Sharing
from service.job import runner_key
from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedServer, SimulatedSettings
from tests.dropin.test_callers import leave, leaving
from tests.support.backends import until_answering
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

WEIGHTS = "7" * 64
SIZE = 2_000_000_000
BASE, OTHER, LONG, ALONE = "base:latest", "other:latest", "long:latest", "alone:latest"
BIG = SimulatedSettings(
    models=(
        SimulatedModel("base", weights=WEIGHTS, size=SIZE, load_seconds=0.01),
        SimulatedModel("other", weights=WEIGHTS, size=SIZE + 900, load_seconds=0.01),
        SimulatedModel("long", weights=WEIGHTS, size=SIZE + 950, parameters=(("num_ctx", 32_768),)),
        SimulatedModel("alone", size=9_000_000_000, load_seconds=0.01),
    ),
    max_loaded_models=1,
    parallel=4,
    tokens=4,
)


def modelfile(*lines: str) -> dict[str, Any]:
    return {"modelfile": "\n".join(["# Modelfile", "# FROM name:latest", "", *lines]), "parameters": "stop  x\n"}


def installed(name: str, digest: str, size: int = SIZE, **entry: Any) -> InstalledModel:
    return InstalledModel(name, digest, size, {"details": {"family": "llama"}, **entry})


async def until_shared(service: RunningService) -> None:
    """Wait until it is known which models share their weights."""
    [backend] = service.app[POOL]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while backend.placement.own(OTHER) != BASE:
            await service.call("GET", "/health")


def generate(model: str) -> dict[str, Any]:
    return {"model": model, "prompt": "Why?", "stream": False}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_of_another_name_that_leaves_ends_its_generation(stream: bool) -> None:
    async with service_in_process(settings=BIG) as service:
        await until_shared(service)
        assert (await service.call("POST", "/api/generate", generate("base")))[0] == 200
        service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=1, times=1, endpoint="/api/generate"))
        body = {**generate("other"), "stream": stream}
        caller = asyncio.create_task(leaving(service, body, "/api/generate"))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        await leave(caller)
        await service.ollama.observations.until(lambda seen: seen.closed_connections == 1)
        assert service.ollama.observations.loads.total() == 1


async def test_jobs_of_two_names_run_beside_each_other_and_a_third_model_waits_for_both() -> None:
    async with service_in_process(settings=BIG) as service:
        await until_shared(service)
        fault = Fault(kind=FaultKind.STALL, after_tokens=1, times=3, endpoint="/api/generate")
        stall = service.ollama.arm(fault)
        callers = [asyncio.create_task(service.call("POST", "/api/generate", generate("other")))]
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        callers += [
            asyncio.create_task(service.call("POST", "/api/generate", generate(name))) for name in (BASE, "other")
        ]
        await service.ollama.observations.until(lambda seen: seen.stalled == 3)
        [backend] = service.app[POOL]
        backend.placement.fitting.refuse({backend.placement.own(OTHER), ALONE}, service.app[CLOCK].now_ms())
        callers.append(asyncio.create_task(service.call("POST", "/api/generate", generate("alone"))))
        await service.look((await newest_id(service)), lambda job: job["status"] == "queued")
        _, listed = await service.call("GET", "/api/models")
        assert {one["name"]: one["is_loaded"] for one in listed["models"]} == {
            BASE: True, OTHER: True, LONG: False, ALONE: False,
        }  # fmt: skip
        stall.release()
        assert [(await caller)[0] for caller in callers] == [200] * 4
        assert service.ollama.observations.loads == {"other:latest": 1, "alone:latest": 1}


async def newest_id(service: RunningService) -> str:
    """The id of the newest job, once it is that of the model that nobody shares."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            _, answer = await service.call("GET", "/api/v1/prompts")
            if answer["prompts"][0]["model"] == "alone":
                return str(answer["prompts"][0]["id"])


def test_weights_are_what_stands_at_the_head_and_what_would_load_them_anew() -> None:
    plain = weights_of(modelfile("FROM /blobs/sha256-1", "TEMPLATE a"))
    assert plain is not None
    assert plain == weights_of(modelfile("FROM /blobs/sha256-1", 'SYSTEM """', "FROM /blobs/sha256-2", '"""'))
    assert plain != weights_of(modelfile("FROM /blobs/sha256-1", "FROM /blobs/sha256-2"))
    assert plain != weights_of(modelfile("FROM /blobs/sha256-1", "ADAPTER /blobs/sha256-2"))
    temperature = modelfile("FROM /blobs/sha256-1") | {"parameters": 'temperature    0.5\n\nstop           "num_ctx"'}
    assert plain == weights_of(temperature)
    assert plain != weights_of(modelfile("FROM /blobs/sha256-1") | {"parameters": "num_ctx      512"})
    assert plain != weights_of(modelfile("FROM /blobs/sha256-1", "DRAFT /blobs/sha256-2", "FROM /blobs/sha256-3"))
    assert weights_of({}) is None
    assert weights_of(modelfile("FROM ", "TEMPLATE x")) is None
    assert weights_of({"modelfile": "TEMPLATE x\nFROM y", "parameters": 5}) is None


def test_only_models_that_look_alike_are_asked_about_and_each_once() -> None:
    sharing = Sharing()
    one, other, copy = installed("one", "1"), installed("Other", "2", SIZE + 5_000), installed("copy", "1")
    alone, cloud = installed("alone", "3", 2 * SIZE), installed("x:cloud", "4")
    remote, another = installed("remote", "5", remote_model="x"), installed("another", "6", details={"family": "qwen"})
    models = [one, other, copy, alone, cloud, remote, another]
    assert {model.digest for model in sharing.unknown(models)} == {"1", "2"}
    # Copies are told by their digest alone.
    assert sharing.names(models) == {"one:latest": "copy:latest", "copy:latest": "copy:latest"}
    sharing.learn(one, "weights")
    assert [model.digest for model in sharing.unknown(models)] == ["2"]
    sharing.learn(other, "weights")
    assert sharing.unknown(models) == []
    assert sharing.names(models) == dict.fromkeys(("one:latest", "other:latest", "copy:latest"), "copy:latest")
    # It was made anew, and nobody could tell of what.
    anew = installed("other", "7")
    assert sharing.unknown([one, anew]) == [anew]
    sharing.learn(anew, None)
    assert sharing.unknown([one, anew]) == []
    assert sharing.names([one, anew]) == {}


def test_a_load_of_one_name_is_that_of_the_other() -> None:
    placement = Placement(30_000)
    placement.know_names({BASE: BASE, OTHER: BASE})
    assert choose(placement, {OTHER: 0}, 0) == OTHER
    placement.sent(OTHER, 0)
    assert placement.is_loading(BASE)
    assert placement.is_loading(OTHER)
    assert choose(placement, {BASE: 0}, 0) is None
    placement.listed(map(Listed, {OTHER}), 100)
    assert placement.is_loaded(BASE)
    assert not placement.is_loading(OTHER)
    assert choose(placement, {BASE: 5, OTHER: 4, ALONE: 0}, 200) == BASE
    placement.sent(BASE, 200)
    assert placement.in_flight == {OTHER: 1, BASE: 1}
    placement.ended(OTHER, 300)
    assert choose(placement, {ALONE: 0}, 300) is None
    placement.ended(BASE, 400)
    assert placement.in_flight == {}
    # With options for which it is loaded anew it is another runner, whatever its name.
    longer = runner_key("base", {"num_ctx": 4096})
    placement.sent(longer, 500)
    assert choose(placement, {OTHER: 400}, 500) is None
    assert placement.is_loading(runner_key("other", {"num_ctx": 4096}))
    assert placement.swaps == 2


def test_what_shares_is_learnt_while_both_names_are_at_work() -> None:
    placement = Placement(30_000)
    placement.sent(BASE, 0)
    placement.answered(BASE, 10)
    placement.sent(OTHER, 20)
    placement.listed(map(Listed, {BASE}), 30)
    assert placement.is_loading(OTHER)
    placement.know_names({BASE: BASE, OTHER: BASE})
    assert placement.is_loaded(OTHER)
    assert not placement.is_loading(OTHER)
    placement.ended(BASE, 40)
    assert choose(placement, {ALONE: 0}, 50) is None
    placement.ended(OTHER, 60)
    placement.listed(map(Listed, {BASE}), 60)
    assert choose(placement, {ALONE: 0}, 60) == ALONE
    # They are told apart again: the one that is listed is the one that is there.
    placement.know_names({})
    placement.listed(map(Listed, {BASE}), 70)
    assert placement.is_loaded(BASE)
    assert not placement.is_loaded(OTHER)


def test_names_of_one_runner_take_turns_however_much_waits_for_one_of_them() -> None:
    placement = Placement(30_000)
    placement.know_names({BASE: BASE, OTHER: BASE})
    order = []
    for turn in range(4):
        chosen = choose(placement, {BASE: 0, OTHER: 500}, 1_000 + turn)
        assert chosen is not None
        order.append(chosen)
        placement.sent(chosen, 1_000 + turn)
        placement.answered(chosen, 1_000 + turn)
        placement.ended(chosen, 1_000 + turn)
    assert order == [BASE, OTHER] * 2


async def test_a_name_that_is_gone_stands_for_nobody(tmp_path: Path) -> None:
    async with service_in_process(settings=BIG, folder=tmp_path) as service:
        await until_shared(service)
        [backend] = service.app[POOL]
        backend.placement.sent(OTHER, 0)
        backend.note_missing(BASE)
        # What is at work for the others is not forgotten with it.
        assert choose(backend.placement, {ALONE: 0}, 1) is None
        backend.placement.ended(OTHER, 2)
        assert backend.placement.in_flight == {}


async def test_a_model_is_elsewhere_by_its_own_name_and_only_where_its_jobs_are_taken(tmp_path: Path) -> None:
    async with SimulatedServer(BIG) as ollama, service_in_process(settings=BIG, folder=tmp_path) as service:
        pool = service.app[POOL]
        [first] = pool
        await until_shared(service)
        second = service.config.backends[0].model_copy(update={"name": "second", "url": ollama.url})
        config = service.config.model_copy(update={"backends": (*service.config.backends, second)})
        service.app[RELOADING].apply(config)
        await until_answering(service, 2)
        other = pool.find("second")
        assert pool.loaded_elsewhere(other, [OTHER, ALONE]) == set()
        first.placement.sent(BASE, 0)
        assert pool.loaded_elsewhere(other, [OTHER, ALONE]) == {OTHER}
        for number in range(service.config.breaker.failure_threshold):
            first.breakers.model_failed(OTHER, BASE, Evidence(str(number), "owner", number))
        assert pool.loaded_elsewhere(other, [BASE, OTHER]) == {BASE}
        assert first not in pool.serving(OTHER)
        first.placement.ended(BASE, 1)
