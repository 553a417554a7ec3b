"""The backends as admins see them, and taking one out of service."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from service.cli.admin_socket import admin_socket_path
from service.simulated import Fault, FaultKind, SimulatedServer
from tests.support.backends import backends, until_answering
from tests.support.command_line import ran
from tests.support.running import QUICK, RunningService, service_in_process


@asynccontextmanager
async def two_boxes(options: dict[str, Any] | None = None) -> AsyncIterator[tuple[RunningService, Any, Any]]:
    """A service with two equal servers, which listens to commands, too."""
    with tempfile.TemporaryDirectory(prefix="corral-test-") as folder:
        async with (
            SimulatedServer(QUICK) as first,
            SimulatedServer(QUICK) as second,
            service_in_process({**backends(first, second), **(options or {})}, folder=Path(folder)) as service,
        ):
            await until_answering(service, 2)
            socket = admin_socket_path(service.config)
            assert socket is not None
            await web.UnixSite(service.runner, socket).start()
            yield service, first, second


async def as_admin(service: RunningService, method: str, path: str) -> tuple[int, Any]:
    """Through the socket, whoever may open which is an admin."""
    connector = aiohttp.UnixConnector(str(admin_socket_path(service.config)))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://localhost{path}") as response,
    ):
        return response.status, await response.json(content_type=None)


async def listed(service: RunningService) -> dict[str, dict[str, Any]]:
    status, answer = await as_admin(service, "GET", "/api/v1/backends")
    assert status == 200
    return {backend["name"]: backend for backend in answer["backends"]}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/backends"),
        ("POST", "/api/v1/backends/box0/drain"),
        ("POST", "/api/v1/backends/box0/resume"),
    ],
)
async def test_nobody_but_an_admin_may(method: str, path: str) -> None:
    async with two_boxes() as (service, _, _):
        status, answer = await service.call(method, path)
        assert status in (401, 403)
        assert "admin" in answer["error"]


async def test_each_backend_is_shown_with_seats_models_breaker_and_rates() -> None:
    async with two_boxes() as (service, first, second):
        stalled = [server.arm(Fault(kind=FaultKind.STALL, prompt="long")) for server in (first, second)]
        for _ in range(3):
            await service.finished()
        await service.until(await service.submit("long"), "processing")
        await service.look(await service.submit("more"), lambda job: job["status"] == "completed")
        boxes = await listed(service)
        for stall in stalled:
            stall.release()
        assert sum(box["running"] for box in boxes.values()) == 1
        assert sum(box["rates"]["jobs_per_minute"] for box in boxes.values()) > 0
        assert max(box["rates"]["tokens_per_second"] for box in boxes.values()) > 0
        assert max(box["rates"]["mean_seconds"] or 0 for box in boxes.values()) >= 0
        for name, box in boxes.items():
            assert (box["name"], box["state"], box["seats"]) == (name, "ok", 2)
            assert box["breaker"] == {"state": "closed", "faults": 0, "rest_seconds": 0.0}
            assert set(box["models"]) == {"llama3.2:latest", "thinker:latest"}
            assert box["version"] == "0.24.0"
        assert any("llama3.2:latest" in box["loaded_models"] for box in boxes.values())


async def test_a_backend_that_is_away_says_why() -> None:
    async with two_boxes({"health.probe_interval_seconds": 0.05}) as (service, first, _):
        await first.refuse_connections()
        await until_answering(service, 1)
        boxes = await listed(service)
        assert boxes["box0"]["state"] == "absent"
        assert "cannot be reached" in boxes["box0"]["error"]


async def test_a_drained_backend_ends_what_it_has_and_gets_nothing_more_until_it_is_resumed() -> None:
    async with two_boxes() as (service, first, second):
        stalled = first.arm(Fault(kind=FaultKind.STALL, after_tokens=2)), second.arm(Fault(kind=FaultKind.STALL))
        running = [await service.submit(f"long {number}") for number in range(4)]
        await first.observations.until(lambda seen: seen.stalled == 2)
        await second.observations.until(lambda seen: seen.stalled == 2)
        status, answer = await as_admin(service, "POST", "/api/v1/backends/box0/drain")
        assert (status, answer["state"], answer["running"]) == (200, "draining", 2)
        for stall in stalled:
            stall.release()
        for job_id in running:
            assert (await service.until(job_id, "completed"))["attempt"] == 1
        assert (await listed(service))["box0"]["state"] == "drained"
        before = first.observations.requests["/api/generate"]
        for _ in range(4):
            await service.finished()
        assert first.observations.requests["/api/generate"] == before

        await as_admin(service, "POST", "/api/v1/backends/box1/drain")
        held = await service.submit("held")
        assert (await service.look(held, lambda job: True))["status"] == "queued"
        status, answer = await as_admin(service, "POST", "/api/v1/backends/box0/resume")
        assert (status, answer["state"]) == (200, "ok")
        await service.until(held, "completed")
        assert first.observations.prompts[-1] == "held"


async def test_a_backend_that_does_not_exist_is_refused_with_those_that_do() -> None:
    async with two_boxes() as (service, _, _):
        status, answer = await as_admin(service, "POST", "/api/v1/backends/box9/drain")
        assert status == 404
        assert "box0, box1" in answer["error"]


async def test_the_command_shows_drains_and_resumes() -> None:
    async with two_boxes() as (service, _, _):
        here = {"OLLAMA_PROXY_DB": str(service.config.database.path)}
        shown = await ran("backends", "drain", "box0", environ=here)
        assert (shown.status, [line.split()[:2] for line in shown.lines]) == (0, [["box0", "drained"], ["box1", "ok"]])
        assert shown.err == f"drained box0 at the service {admin_socket_path(service.config)}\n"
        shown = await ran("backends", "resume", "box0", environ=here)
        assert (shown.status, [line.split()[:2] for line in shown.lines]) == (0, [["box0", "ok"], ["box1", "ok"]])
        refused = await ran("backends", "drain", "nope", environ=here)
        assert (refused.status, refused.out) == (1, "")
        assert "there is no backend 'nope'; there are: box0, box1" in refused.err
