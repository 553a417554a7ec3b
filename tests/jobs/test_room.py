"""``database.max_bytes`` bounds what is stored: the oldest contents of jobs that have ended make room."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from service.job import Job
from tests.support.databases import Place
from tests.support.running import RunningService, service_in_process

MIB = 1 << 20


async def jobs_of(service: RunningService, ids: list[str]) -> list[Job]:
    return [(await service.jobs.views.view(job_id)).job for job_id in ids]


def long_prompt() -> str:
    """What cannot be compressed by much; it is stored as a prompt and in a request."""
    return os.urandom(500_000).hex()


async def test_the_oldest_contents_go_first_and_never_those_of_jobs_that_wait(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    database = {"database.url": place.config.url} if place.config.url else {"database.path": str(place.config.path)}
    async with service_in_process({**database, "database.max_bytes": "16 MiB"}, seats=1) as service:
        retention = service.jobs.retention
        assert await retention.make_room() == 0
        ended = [await service.finished(long_prompt()) for _ in range(6)]
        service.stall()
        ended.append(running := await service.submit(long_prompt()))
        await service.until(running, "processing")
        waiting = await service.submit(long_prompt())
        never = await service.submit(long_prompt())
        await service.call("DELETE", f"/api/v1/prompt/{never}")
        await service.look(never, lambda job: job["status"] == "cancelled")
        deleted = await retention.make_room()
        states = [job.contents_deleted_at is not None for job in await jobs_of(service, [never, *ended, waiting])]
        # The one that nobody has used, and then the oldest, as many as it takes.
        assert states == [True] * deleted + [False] * (len(states) - deleted)
        assert 1 < deleted < len(ended)
        _, health = await service.call("GET", "/health")
        room = health["database"]["room"]
        assert (room["max_bytes"], room["jobs_emptied"]) == (16 * MIB, deleted)
        assert room["used_bytes"] < 16 * MIB * 0.95
        assert "last_emptied_at" in room
        assert f"the contents of {deleted} old jobs were deleted" in caplog.text
        assert (await service.call("GET", f"/api/v1/prompt/{ended[0]}/result"))[0] == 410
        assert (await service.call("GET", f"/api/v1/prompt/{waiting}/request"))[0] == 200
        assert await retention.make_room() == 0


async def test_where_only_jobs_that_wait_are_left_it_is_said_and_nothing_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"database.max_bytes": "16 MiB", "queue.default_model": "llama3.2"}
    async with service_in_process(options, seats=1, folder=tmp_path) as service:
        service.stall()
        await service.until(await service.submit(), "processing")
        waiting = [await service.submit(long_prompt()) for _ in range(9)]
        assert await service.jobs.retention.make_room() == 0
        assert "no job that has ended has contents left" in caplog.text
        assert {job.contents_deleted_at for job in await jobs_of(service, waiting)} == {None}
        _, health = await service.call("GET", "/health")
        assert (health["status"], "room" in health["database"]) == ("ok", True)


async def test_a_file_that_has_grown_beyond_the_bound_is_shortened(tmp_path: Path) -> None:
    async with service_in_process({"database.max_bytes": "16 MiB"}, folder=tmp_path) as service:
        path = service.config.database.path
        for _ in range(10):
            await service.finished(long_prompt())
        await service.jobs.retention._contents.erase()
        assert path.stat().st_size > 18 * MIB
        assert await service.jobs.retention.make_room() > 0
        assert path.stat().st_size <= 16 * MIB


async def test_without_a_bound_nothing_is_looked_at() -> None:
    async with service_in_process() as service:
        assert await service.jobs.retention.make_room() == 0
        assert service.jobs.retention.used_bytes is None
        assert "room" not in (await service.call("GET", "/health"))[1]["database"]


async def test_processes_that_make_room_at_once_delete_no_more_than_one_alone(postgres_place: Place) -> None:
    options = {"database.url": postgres_place.config.url}
    async with service_in_process(options) as one, service_in_process(options) as two:
        for _ in range(20):
            await one.finished(os.urandom(2_000).hex())
        used = await one.jobs.retention._contents.used_bytes()
        for service in (one, two):
            service.jobs.retention.max_bytes = used * 2 // 3
        await asyncio.gather(*(service.jobs.retention.make_room() for service in (one, two)))
        left = await one.jobs.retention._contents.used_bytes()
        # Twice as much would be less than a quarter of what it was.
        assert used // 2 < left < used * 2 // 3
