"""Wherever a job's position is shown, it is said whether that is exact; far back in a long queue it is estimated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from service.store.job_statements import EXACT_RANK
from tests.live.test_stream import following
from tests.live.test_websocket import connected
from tests.support.running import RunningService, service_in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAITING = EXACT_RANK + 9


def is_told_right(row: dict[str, Any]) -> bool:
    """Whether a queued job's row says so exactly of those positions that are exact."""
    return bool(row["position_is_exact"] == (row["position"] <= EXACT_RANK))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def queue() -> AsyncIterator[tuple[RunningService, list[str]]]:
    """A service in which one job runs, and the ids of those that wait behind it."""
    async with service_in_process(seats=1) as service:
        stalled = service.stall()
        running = await service.submit()
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        submitted = await asyncio.gather(*(service.submit() for _ in range(WAITING)))
        in_order = [view.job.id for view in sorted(await _views(service, submitted), key=lambda view: view.job.seq)]
        yield service, [running, *in_order]
        stalled.release()


async def _views(service: RunningService, ids: list[str]) -> list[Any]:
    return [await service.jobs.views.view(job_id) for job_id in ids]


async def test_a_status_says_it(queue: tuple[RunningService, list[str]]) -> None:
    service, (running, first, *_, last) = queue
    places = []
    for job_id in (first, last):
        _, answer = await service.call("GET", f"/api/v1/prompt/{job_id}/status")
        places.append((answer["position"], answer["position_is_exact"]))
    assert places == [(1, True), (WAITING, False)]
    _, answer = await service.call("GET", f"/api/v1/prompt/{running}/status")
    assert not {"position", "position_is_exact"} & set(answer)


async def test_a_list_says_it_of_each_job_that_waits(queue: tuple[RunningService, list[str]]) -> None:
    service, _ = queue
    _, answer = await service.call("GET", "/api/v1/prompts?page_size=100")
    rows = answer["prompts"]
    assert len(rows) == 100
    assert all(map(is_told_right, rows))
    assert {row["position_is_exact"] for row in rows} == {True, False}


async def test_the_websocket_says_it(queue: tuple[RunningService, list[str]]) -> None:
    service, (_, first, *_, last) = queue
    async with connected(service) as client:
        rows = (await client.subscribe("jobs"))["jobs"]
        assert all(map(is_told_right, rows))
        for job_id in (first, last):
            assert is_told_right((await client.subscribe("job", id=job_id))["job"])


async def test_an_event_stream_says_it(queue: tuple[RunningService, list[str]]) -> None:
    service, (_, first, *_, last) = queue
    for job_id in (first, last):
        async with following(service, job_id) as listener:
            [status] = await listener.until("status")
            assert is_told_right(status.data)


async def test_an_answer_to_a_submission_says_it_unless_the_job_does_not_wait_for_its_turn(
    queue: tuple[RunningService, list[str]],
) -> None:
    service, _ = queue
    _, answer = await service.call("POST", "/api/v1/prompt", {"prompt": "x", "priority": "high"})
    assert answer["position_is_exact"] is True
    body = {"prompt": "x", "not_before": time.time() + 86_400}
    _, answer = await service.call("POST", "/api/v1/prompt", body)
    assert answer["position"] is None
    assert "position_is_exact" not in answer


async def test_the_requests_api_keeps_its_shape(queue: tuple[RunningService, list[str]]) -> None:
    service, _ = queue
    _, answer = await service.call("GET", "/requests?per_page=1")
    assert "position_is_exact" not in answer["requests"][0]
    _, answer = await service.call("GET", f"/status/{answer['requests'][0]['request_id']}")
    assert "position_is_exact" not in answer
