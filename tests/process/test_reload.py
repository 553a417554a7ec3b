"""A new configuration while the service runs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.app import RELOADING
from service.config import Config, load_config
from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedServer, SimulatedSettings
from tests.support.backends import backends, until_answering, until_health
from tests.support.processes import running_service
from tests.support.running import QUICK, RunningService, service_in_process


def reload(service: RunningService, options: dict[str, Any]) -> Config:
    """What SIGHUP does when the file has changed to this."""
    config = load_config(environ={}, options={"database.path": str(service.config.database.path), **options})
    service.app[RELOADING].apply(config)
    return config


async def test_a_backend_that_is_added_gets_work() -> None:
    async with (
        SimulatedServer(QUICK) as first,
        SimulatedServer(QUICK) as second,
        service_in_process(backends(first)) as service,
    ):
        await service.finished()
        stalled = first.arm(Fault(kind=FaultKind.STALL))
        for _ in range(2):
            await service.submit("holds the seats of the first")
        await first.observations.until(lambda seen: seen.stalled == 2)
        waiting = [await service.submit("for the second") for _ in range(2)]
        reload(service, backends(first, second))
        for job_id in waiting:
            await service.look(job_id, lambda job: job["status"] == "completed")
        assert second.observations.prompts == ["for the second"] * 2
        stalled.release()


async def test_a_backend_that_is_removed_finishes_its_jobs_and_gets_no_more() -> None:
    async with (
        SimulatedServer(QUICK) as first,
        SimulatedServer(QUICK) as second,
        service_in_process(backends(first, second)) as service,
    ):
        await until_answering(service, 2)
        stalled = [server.arm(Fault(kind=FaultKind.STALL, after_tokens=3)) for server in (first, second)]
        running = [await service.submit(f"running {number}") for number in range(4)]
        for server in (first, second):
            await server.observations.until(lambda seen: seen.stalled == 2)
        reload(service, backends(first))
        health = await until_health(service, lambda health: True)
        assert [one["name"] for one in health["backends"]] == ["box0"]
        for stall in stalled:
            stall.release()
        for job_id in running:
            assert (await service.look(job_id, lambda job: job["status"] == "completed"))["attempt"] == 1
        for _ in range(4):
            await service.finished()
        assert second.observations.requests["/api/generate"] == 2


async def test_more_seats_are_used_at_once_and_fewer_as_they_become_free() -> None:
    settings = SimulatedSettings(models=QUICK.models, parallel=8)
    async with SimulatedServer(settings) as ollama, service_in_process(backends(ollama, concurrency=1)) as service:
        stalled = ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=1))
        jobs = [await service.submit(f"p{number}") for number in range(8)]
        await ollama.observations.until(lambda seen: seen.stalled == 1)
        reload(service, backends(ollama, concurrency=6))
        await ollama.observations.until(lambda seen: seen.stalled == 6)
        reload(service, backends(ollama, concurrency=2))
        stalled.release()
        second = ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=1))
        for job_id in jobs[:6]:
            await service.look(job_id, lambda job: job["status"] in ("completed", "processing"))
        second.release()
        for job_id in jobs:
            await service.look(job_id, lambda job: job["status"] == "completed")
        again = ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=1))
        more = [await service.submit(f"q{number}") for number in range(4)]
        await ollama.observations.until(lambda seen: seen.stalled == 2)
        assert ollama.observations.in_flight == 2
        again.release()
        for job_id in more:
            await service.look(job_id, lambda job: job["status"] == "completed")


async def test_new_limits_of_models_and_of_the_queue_hold_from_then_on() -> None:
    async with service_in_process(seats=1) as service:
        reload(service, {**same_backends(service), "models": {"llama3.2": {"max_tokens": 3}}, "queue.max_size": 1})
        await service.finished()
        assert json.loads(service.ollama.observations.seen[-1].body)["options"] == {"num_predict": 3}
        stalled = service.stall(after_tokens=1)
        await service.until(await service.submit("runs"), "processing")
        await service.submit("waits")
        assert (await service.call("POST", "/api/v1/prompt", {"prompt": "too much"}))[0] == 503
        stalled.release()


async def test_a_new_default_model_is_asked_from_then_on() -> None:
    async with service_in_process() as service:
        reload(service, {**same_backends(service), "queue.default_model": "thinker"})
        for path, submitted in (("/api/v1/prompt", 202), ("/generate", 200)):
            assert (await service.call("POST", path, {"prompt": path}))[0] == submitted
        await service.ollama.observations.until(lambda seen: seen.answers == 2)
        assert {seen.model for seen in service.ollama.observations.seen} == {"thinker"}
        assert (await service.call("GET", "/api/models"))[1]["default"] == "thinker"


async def test_signs_of_life_are_sent_to_who_waits_from_then_on() -> None:
    async with service_in_process() as service:
        reload(service, {**same_backends(service), "queue.heartbeat_seconds": 0.02})
        stalled = service.stall(after_tokens=0)
        body = {"model": "llama3.2", "prompt": "Why?"}
        async with service.session.post("/api/generate", json=body) as response:
            assert json.loads(await response.content.readline())["response"] == ""
            stalled.release()


async def test_new_leads_of_priorities_hold_for_what_waits_already() -> None:
    async with service_in_process(seats=1) as service:
        stalled = service.stall(after_tokens=1, times=1)
        await service.until(await service.submit("runs"), "processing")
        waiting = [await service.submit("normal"), await service.submit("high", priority="high")]
        assert [await position(service, job_id) for job_id in waiting] == [2, 1]
        reload(service, {**same_backends(service), "queue.boost_high_seconds": 0})
        assert [await position(service, job_id) for job_id in waiting] == [1, 2]
        stalled.release()
        for job_id in waiting:
            await service.until(job_id, "completed")
        assert service.ollama.observations.prompts == ["runs", "normal", "high"]


async def position(service: RunningService, job_id: str) -> int:
    _, job = await service.call("GET", f"/api/v1/prompt/{job_id}/status")
    return int(job["position"])


def same_backends(service: RunningService) -> dict[str, Any]:
    return {"backends": [one.model_dump() for one in service.config.backends]}


async def test_new_models_may_be_used_once_the_configuration_allows_them() -> None:
    settings = SimulatedSettings(models=(SimulatedModel("alpha"), SimulatedModel("beta")))
    async with SimulatedServer(settings) as ollama, service_in_process(backends(ollama, models=["alpha"])) as service:
        await until_answering(service, 1)
        assert (await service.call("POST", "/api/v1/prompt", {"prompt": "p", "model": "beta"}))[0] == 404
        reload(service, backends(ollama, models=["alpha", "beta"]))
        await service.finished(model="beta")


async def test_what_waits_for_a_restart_is_what_differs_from_the_start(caplog: pytest.LogCaptureFixture) -> None:
    async with SimulatedServer(QUICK) as ollama, service_in_process(backends(ollama)) as service:
        as_started = {**backends(ollama), "server.drain_seconds": 0}

        def waits(options: dict[str, Any]) -> list[str]:
            caplog.clear()
            reload(service, {**as_started, **options})
            said = (record.getMessage().partition("wait for a restart: ") for record in caplog.records)
            return [names for _, found, names in said if found]

        changed = {"websocket.max_subscriptions": 7}
        assert waits(changed) == ["websocket.max_subscriptions"]
        assert waits(changed | {"log.level": "ERROR"}) == ["websocket.max_subscriptions"]
        assert waits({}) == []


async def test_sighup_reads_the_file_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    async with SimulatedServer(QUICK) as first, SimulatedServer(QUICK) as second:
        write(path, first.url)
        async with (
            running_service(tmp_path, "--config", str(path), OLLAMA_URL="") as service,
            aiohttp.ClientSession(service.url) as session,
        ):
            await service.process.hears(f"backend box answers.* at {first.url}")
            path.write_text("[server\n", encoding="utf-8")
            service.process.send(signal.SIGHUP)
            line = (await service.process.hears("the configuration stays as it was")).string
            assert "not TOML" in line
            write(path, second.url)
            service.process.send(signal.SIGHUP)
            await service.process.hears(f"backend box answers.* at {second.url}")
            async with session.post("/api/v1/prompt", json={"prompt": "after"}) as response:
                assert response.status == 202
            await second.observations.until(lambda seen: seen.answers == 1)
            assert first.observations.requests["/api/generate"] == 0
            path.write_text(path.read_text() + "[websocket]\nmax_subscriptions = 7\n", encoding="utf-8")
            service.process.send(signal.SIGHUP)
            await service.process.hears("these changes wait for a restart: websocket.max_subscriptions")
            assert not [said for said in service.process.errors if "Traceback" in said]


def write(path: Path, url: str) -> None:
    path.write_text(f'[[backends]]\nname = "box"\nurl = "{url}"\n', encoding="utf-8")
