"""Models that Ollama serves one at a time take one seat, whether it says so or their replies show it."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from corral.cli.asked import Asked
from service.api.context import CLOCK, POOL
from service.backend.backend import Backend
from service.backend.http.connections import Connections
from service.backend.models import InstalledModel, Serial
from service.backend.overlap import OverlapWatch
from service.backend.pool import Pool, build_backend
from service.backend.shares import Limit
from service.cli.admin_socket import admin_socket_path
from service.cli.check import check
from service.clock import Clock
from service.config import BackendConfig, Config, ModelConfig
from service.job import Line, runner_key
from service.scheduling.scheduler import Reason
from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedSettings
from tests.support.backends import until_answering
from tests.support.command_line import ran
from tests.support.placement_simulation import SimulatedService
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

A, B = "a:latest", "b:latest"
HOUR = 3_600_000
MLX = {"details": {"format": "safetensors", "family": "llama", "families": ["llama"]}}
GGUF = {"details": {"format": "gguf", "family": "llama", "families": ["llama"]}, "capabilities": ["completion"]}
FAMILIES = (
    "mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe", "nemotron_h",
    "nemotron_h_moe", "nemotron_h_omni",
)  # fmt: skip


def installed(name: str, entry: dict[str, Any]) -> InstalledModel:
    return InstalledModel(name, "", 0, entry)


def a_pool(connections: Connections, **parallel: int) -> Pool:
    """Two backends with four seats each that answer."""
    config = Config(
        backends=(BackendConfig(name="one", concurrency=4), BackendConfig(name="two", concurrency=4)),
        models={name: ModelConfig(parallel=seats) for name, seats in parallel.items()},
    )
    clock = Clock()
    members = [build_backend(one, connections, config, clock) for one in config.backends]
    pool = Pool(members, config, clock, asyncio.Event())
    for backend in pool:
        backend.is_answering = True
        backend.note_installed((installed(A, GGUF), installed(B, GGUF)))
    return pool


# What the list of models says


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (MLX, Serial.MLX),
        *(({"details": {"format": "gguf", "family": family}}, Serial.FAMILY) for family in FAMILIES),
        ({"details": {"family": "", "families": ["clip", "mllama"]}}, Serial.FAMILY),
        ({**GGUF, "capabilities": ["embedding"]}, Serial.EMBEDDING),
        ({**GGUF, "capabilities": ["decision", "vision"]}, Serial.EMBEDDING),
        (GGUF, None),
        ({**GGUF, "capabilities": ["tools", "completion"]}, None),
        # 0.24 lists no capabilities, of embedding models neither.
        ({"details": {"format": "gguf", "family": "nomic-bert", "families": ["nomic-bert"]}}, None),
        ({**GGUF, "capabilities": []}, None),
        ({**GGUF, "capabilities": None}, None),
        ({"details": {"format": None, "family": 3, "families": None}, "capabilities": "embedding"}, None),
        ({"details": None}, None),
        ({}, None),
    ],
)
def test_a_model_that_has_one_slot_is_known_by_its_entry(entry: dict[str, Any], why: Serial | None) -> None:
    assert installed(A, entry).serial is why


async def test_such_a_model_has_one_seat_on_the_backends_where_it_is_so() -> None:
    async with Connections() as connections:
        pool = a_pool(connections)
        one, two = pool
        one.note_installed((installed(A, MLX), installed(B, GGUF)))
        assert [pool.seats_for(backend, A) for backend in pool] == [1, 4]
        assert [pool.free_seats_for(backend, A) for backend in pool] == [1, 4]
        pool.take(one, A, "owner")
        assert [pool.may_take(backend, A) for backend in pool] == [False, True]
        assert [pool.free_seats_for(backend, A) for backend in pool] == [0, 4]
        # Another context length makes another runner, and not another slot.
        assert not pool.may_take(one, runner_key("a", {"num_ctx": 8192}))
        assert pool.may_take(one, B)
        pool.free(one, A)
        assert pool.may_take(one, A)
        assert pool.shares.limits(one) == {A: Limit(1, Serial.MLX)}
        assert pool.shares.limits(two) == {}


async def test_what_the_operator_says_wins() -> None:
    async with Connections() as connections:
        pool = a_pool(connections, a=3)
        one, _ = pool
        one.note_installed((installed(A, MLX),))
        one.seating.overlap.limited[B] = Clock().now_ms()
        assert (pool.seats_for(one, A), pool.seats_for(one, B)) == (3, 1)
        pool.reconfigure(Config(backends=tuple(backend.config for backend in pool)), lambda _: one)
        assert pool.seats_for(one, A) == 1
        assert pool.shares.limits(one) == {A: Limit(1, Serial.MLX)}
        pool.shares.replace({"A": ModelConfig(parallel=9), "b": ModelConfig(parallel=4)})
        assert (pool.seats_for(one, A), pool.seats_for(one, B)) == (4, 4)
        assert pool.shares.limits(one) == {}


async def test_models_of_the_same_weights_share_the_seat() -> None:
    async with Connections() as connections:
        pool = a_pool(connections)
        one, _ = pool
        one.note_installed((installed(A, MLX), installed(B, MLX)))
        one.placement.know_names({A: A, B: A})
        pool.take(one, B, "owner")
        assert not pool.may_take(one, A)
        one.note_installed((installed(A, GGUF), installed(B, GGUF)))
        one.placement.know_names({A: A, B: A})
        one.seating.overlap.limited[A] = Clock().now_ms()
        assert not pool.may_take(one, A)
        assert not pool.may_take(one, B)


async def test_a_model_of_the_cloud_takes_as_many_as_there_are() -> None:
    async with Connections() as connections:
        pool = a_pool(connections)
        one, _ = pool
        named, alias = "qwen3vl:235b-cloud", "eyes:latest"
        family = {"details": {"family": "qwen3vl"}}
        one.note_installed((installed(named, family), installed(alias, {**family, "remote_model": "qwen3vl:235b"})))
        assert [pool.seats_for(one, name) for name in (named, alias)] == [4, 4]
        assert pool.shares.began(one, named, 0, 0) is None


def test_a_job_that_waits_for_the_one_seat_is_told_so() -> None:
    service = SimulatedService()
    backend = service.add_backend(seats=4, loaded=[A])
    backend.own.note_installed((installed(A, MLX),))
    service.submit(A, 10_000)
    service.submit(A, 10_000)
    service.run(100)
    assert service.scheduler.explain(Line(A, "newcomer", 0)) is Reason.MODEL_LIMIT
    service.run()
    assert [job.waited for job in service.jobs] == [0, 10_000]


# What replies show


@asynccontextmanager
async def serving(slots: int, tokens: int = 3, **options: Any) -> AsyncIterator[tuple[RunningService, Backend]]:
    """A service that gives five jobs at once to a server with so many slots, and listens to commands, too."""
    models = (SimulatedModel("llama3.2"), SimulatedModel("eyes", family="qwen35"))
    settings = SimulatedSettings(models=models, parallel=slots, tokens=tokens, token_seconds=0.02)
    with tempfile.TemporaryDirectory(prefix="corral-test-") as folder:
        async with service_in_process(options or None, settings, seats=5, folder=Path(folder)) as service:
            await until_answering(service, 1)
            socket = admin_socket_path(service.config)
            assert socket is not None
            await web.UnixSite(service.runner, socket).start()
            [backend] = service.app[POOL]
            # A reply need not take a second to show something.
            backend.seating.overlap = OverlapWatch(least_overlap_ms=1)
            yield service, backend


async def prompts(service: RunningService) -> None:
    for job_id in [await service.submit(model="llama3.2") for _ in range(6)]:
        await service.until(job_id, "completed")


async def chats(service: RunningService) -> None:
    async def chat() -> None:
        body = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}], "stream": True}
        async with service.session.post("/api/chat", json=body) as response:
            assert b'"done":true' in await response.read()

    await asyncio.gather(*(chat() for _ in range(6)))


LEARNED = "llama3.2:latest"


async def most_at_once(service: RunningService, expected: int, ask: Any = prompts) -> int:
    """How many of six requests the server has at a time. The first is held back until there are as many as expected."""
    seen = service.ollama.observations
    seen.peak_in_flight = 0
    stalled = service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=1, times=1))
    asked = asyncio.create_task(ask(service))
    await seen.until(lambda seen: seen.stalled == 1 and seen.in_flight >= expected)
    stalled.release()
    await asked
    return seen.peak_in_flight


@pytest.mark.parametrize("ask", [prompts, chats])
async def test_a_server_with_one_slot_is_soon_given_one_at_a_time(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(slots=1) as (service, backend), asyncio.timeout(PATIENCE_SECONDS):
        await ask(service)
        while LEARNED not in backend.seating.overlap.limited:
            assert await most_at_once(service, 5, ask) == 5
        assert await most_at_once(service, 1, ask) == 1
        told = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(told) == 1
        for words in ("concurrency = 5", LEARNED, "OLLAMA_NUM_PARALLEL=5", f'parallel = 1 in [models."{LEARNED}"]'):
            assert words in told[0]
        backend.seating.overlap.limited[LEARNED] -= HOUR
        assert await most_at_once(service, 2, ask) == 2


async def test_a_server_with_slots_for_all_is_given_all(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(slots=5, tokens=10) as (service, backend):
        await prompts(service)
        assert await most_at_once(service, 5) == 5
        assert backend.seating.overlap.limited == {}
        backend.seating.overlap.limited[LEARNED] = service.app[CLOCK].now_ms() - HOUR
        with caplog.at_level(logging.INFO):
            await most_at_once(service, 2)
        assert backend.seating.overlap.limited == {}
        assert "answers llama3.2:latest at once: it has all seats again" in caplog.text
        assert await most_at_once(service, 5) == 5


async def test_a_model_whose_seats_are_told_is_not_watched() -> None:
    async with serving(slots=1, models={"llama3.2": {"parallel": 5}}) as (service, backend):
        await prompts(service)
        for _ in range(3):
            assert await most_at_once(service, 5) == 5
        assert backend.seating.overlap.limited == {}


async def test_a_reply_that_is_called_off_is_sending_no_longer() -> None:
    async with serving(slots=1) as (service, backend):
        service.stall(after_tokens=1)
        job_id = await service.submit(model="llama3.2")
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (watched := backend.seating.overlap._models.get(LEARNED)) or not watched.sending:
                await service.call("GET", "/health")
            await service.call("DELETE", f"/api/v1/prompt/{job_id}")
            while watched.sending:
                await service.call("GET", "/health")


async def test_check_and_the_list_of_backends_say_which_models_have_one_seat_and_what_to_set() -> None:
    async with serving(slots=1) as (service, backend):
        said: list[str] = []
        assert await check(service.config, Asked(), say=said.append) == 0
        assert not [line for line in said if line.startswith("warning")]
        assert "seats          backend simulated: one for each of eyes:latest (family), as Ollama has no more" in said
        backend.seating.overlap.limited[LEARNED] = service.app[CLOCK].now_ms()
        said.clear()
        assert await check(service.config, Asked(), say=said.append) == 0
        [warning] = [line for line in said if line.startswith("warning")]
        for words in ("simulated", "concurrency = 5", LEARNED, "OLLAMA_NUM_PARALLEL=5", "parallel = 1"):
            assert words in warning
        shown = await ran("backends", environ={"OLLAMA_PROXY_DB": str(service.config.database.path)})
        assert "eyes:latest: 1 seat (family), llama3.2:latest: 1 seat (learned)" in shown.lines[0]
        await service.stop()
        said.clear()
        await check(service.config, Asked(), say=said.append)
        assert not [line for line in said if line.startswith(("warning", "seats"))]
