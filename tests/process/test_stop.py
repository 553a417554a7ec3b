"""A stop from outside: nothing new comes in, what runs may end, the rest is put back, and everybody is told."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from service.simulated import RECORDED_MODELS, ArmedFault, Fault, FaultKind, SimulatedServer, SimulatedSettings
from tests.support.processes import PATIENCE_SECONDS, Service, running_service

SETTINGS = SimulatedSettings(models=RECORDED_MODELS, parallel=4)
MODEL = "tiny1"
LONG = "3600"
NONE = "0"


class Stage(NamedTuple):
    """A service with one job of which three tokens have come, and no more will."""

    service: Service
    session: aiohttp.ClientSession
    ollama: SimulatedServer
    stalled: ArmedFault
    running_id: str


@asynccontextmanager
async def job_in_the_middle(folder: Path, drain_seconds: str) -> AsyncIterator[Stage]:
    async with (
        SimulatedServer(SETTINGS) as ollama,
        running_service(folder, OLLAMA_URL=ollama.url, CORRAL_SERVER__DRAIN_SECONDS=drain_seconds) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        stalled = ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/generate", after_tokens=3, times=1))
        running_id = await submit(session, "the one that runs")
        await ollama.observations.until(lambda seen: seen.stalled == 1)
        yield Stage(service, session, ollama, stalled, running_id)


async def submit(session: aiohttp.ClientSession, prompt: str) -> str:
    async with session.post("/api/v1/prompt", json={"prompt": prompt, "model": MODEL}) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["id"])


def rows(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Status, attempt and failures of each job, when nobody holds the database."""
    with closing(sqlite3.connect(folder / "queue.db")) as connection:
        return {row[0]: row[1:] for row in connection.execute("SELECT id, status, attempt, failures FROM jobs")}


async def until_refused(port: int) -> None:
    """Connect again and again until nobody listens; a connection that is dropped meanwhile is no refusal yet."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
            except ConnectionRefusedError:
                return
            except ConnectionError:
                continue


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_service_ends_at_once_and_well(tmp_path: Path, number: int) -> None:
    async with running_service(tmp_path) as service:
        service.process.send(number)
        assert await service.process.ended() == 0
        assert not [line for line in service.process.errors if "Traceback" in line]


async def test_it_stops_listening_before_what_runs_has_ended(tmp_path: Path) -> None:
    async with job_in_the_middle(tmp_path, LONG) as stage:
        stage.service.process.send(signal.SIGTERM)
        await until_refused(stage.service.port)
        assert stage.service.process.is_running
        stage.stalled.release()
        assert await stage.service.process.ended() == 0
    assert rows(tmp_path) == {stage.running_id: ("completed", 1, 0)}


async def test_what_does_not_end_in_time_is_put_back_without_a_failure(tmp_path: Path) -> None:
    async with job_in_the_middle(tmp_path, NONE) as stage:
        stage.service.process.send(signal.SIGTERM)
        assert await stage.service.process.ended() == 0
        await stage.ollama.observations.until(lambda seen: seen.closed_connections == 1)
    assert rows(tmp_path) == {stage.running_id: ("queued", 1, 0)}


async def test_what_was_put_back_is_answered_by_the_next_process(tmp_path: Path) -> None:
    async with job_in_the_middle(tmp_path, NONE) as stage:
        stage.service.process.send(signal.SIGTERM)
        assert await stage.service.process.ended() == 0
        async with (
            running_service(tmp_path, OLLAMA_URL=stage.ollama.url) as again,
            aiohttp.ClientSession(again.url) as session,
            session.get(f"/api/v1/prompt/{stage.running_id}/stream") as events,
        ):
            assert "event: done" in await events.text()
            again.process.send(signal.SIGTERM)
            assert await again.process.ended() == 0
    assert rows(tmp_path) == {stage.running_id: ("completed", 2, 0)}


async def test_what_waits_stays_queued_and_is_not_begun(tmp_path: Path) -> None:
    seats = 5
    async with job_in_the_middle(tmp_path, LONG) as stage:
        stage.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/generate", after_tokens=3))
        for number in range(seats):
            await submit(stage.session, f"fills the seats {number}")
        await stage.ollama.observations.until(lambda seen: seen.in_flight == seats)
        stage.service.process.send(signal.SIGTERM)
        await until_refused(stage.service.port)
        stage.stalled.release()
        stage.ollama.faults.clear()
        assert await stage.service.process.ended() == 0
    assert sorted(rows(tmp_path).values()) == [("completed", 1, 0)] * seats + [("queued", 0, 0)]


async def test_websockets_are_closed_as_going_away(tmp_path: Path) -> None:
    async with job_in_the_middle(tmp_path, NONE) as stage, stage.session.ws_connect("/api/v1/ws") as websocket:
        await websocket.send_json({"type": "subscribe", "channel": "jobs"})
        await websocket.receive_json()
        stage.service.process.send(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for _ in websocket:
                pass
        assert websocket.close_code == 1001
        assert await stage.service.process.ended() == 0


async def test_who_follows_a_job_that_ends_during_the_stop_sees_its_end(tmp_path: Path) -> None:
    async with (
        job_in_the_middle(tmp_path, LONG) as stage,
        stage.session.get(f"/api/v1/prompt/{stage.running_id}/stream") as events,
    ):
        assert events.status == 200
        stage.service.process.send(signal.SIGTERM)
        await until_refused(stage.service.port)
        stage.stalled.release()
        assert "event: done" in await events.text()
        assert await stage.service.process.ended() == 0


async def test_a_follower_of_a_job_that_is_put_back_is_let_go(tmp_path: Path) -> None:
    async with (
        job_in_the_middle(tmp_path, NONE) as stage,
        stage.session.get(f"/api/v1/prompt/{stage.running_id}/stream") as events,
    ):
        stage.service.process.send(signal.SIGTERM)
        assert "event: done" not in await events.text()
        assert await stage.service.process.ended() == 0


async def test_a_stop_leaves_no_socket_and_no_log_to_be_replayed(tmp_path: Path) -> None:
    async with job_in_the_middle(tmp_path, NONE) as stage:
        stage.service.process.send(signal.SIGTERM)
        assert await stage.service.process.ended() == 0
    assert {path.name for path in tmp_path.iterdir()} <= {"queue.db", "queue.db.lock"}
