"""What ``list --follow`` tells: each change once, also of jobs that are no longer among the newest."""

from __future__ import annotations

from typing import Any

from corral import AsyncClient
from corral.cli.changes import Changes
from tests.support.running import RunningService

NO_FILTER: dict[str, str | None] = {"status": None, "model": None, "text": None}


async def told(changes: Changes) -> list[tuple[str, str]]:
    return [(job["id"], job["status"]) for job in await changes.look()]


async def test_each_change_is_told_once_wherever_in_the_list_its_job_is(service: RunningService) -> None:
    service.stall()
    ids = [await service.submit(f"prompt {number}") for number in range(205)]
    async with AsyncClient(service.url) as client:
        changes = Changes(client, NO_FILTER, 205)
        first = await told(changes)
        assert [job_id for job_id, _ in first] == ids
        assert all(status in ("queued", "processing") for _, status in first)
        await told(changes)
        assert await told(changes) == []
        await service.call("DELETE", f"/api/v1/prompt/{ids[100]}")
        await service.call("DELETE", f"/api/v1/prompt/{ids[204]}")
        new = [await service.submit("new") for _ in range(103)]
        assert await told(changes) == [
            (ids[100], "cancelled"),
            (ids[204], "cancelled"),
            *((job_id, "queued") for job_id in new),
        ]
        assert await told(changes) == []


async def test_a_job_that_leaves_the_wanted_status_is_told_of_once(service: RunningService) -> None:
    stalled = service.stall(prompt="watched")
    async with AsyncClient(service.url) as client:
        wanted: dict[str, Any] = {**NO_FILTER, "status": "processing"}
        changes = Changes(client, wanted, 20)
        assert await told(changes) == []
        job_id = await service.submit("watched")
        await service.until(job_id, "processing")
        await service.finished("never seen at work")
        assert await told(changes) == [(job_id, "processing")]
        stalled.release()
        await service.until(job_id, "completed")
        assert await told(changes) == [(job_id, "completed")]
        assert await told(changes) == []


async def test_a_purged_job_is_forgotten(service: RunningService) -> None:
    service.stall()
    job_id = await service.submit()
    async with AsyncClient(service.url) as client:
        changes = Changes(client, NO_FILTER, 20)
        await told(changes)
        await service.call("DELETE", f"/api/v1/prompt/{job_id}?purge=true")
        assert await told(changes) == []
        assert await told(changes) == []
