"""The requests API: integer ids and the three statuses that its clients know."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.simulated import Fault, FaultKind
from tests.support.running import RunningService, service_in_process


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process(seats=1) as running:
        yield running


async def submit(service: RunningService, prompt: str = "hello") -> int:
    status, answer = await service.call("POST", "/generate", {"model": "llama3.2", "prompt": prompt})
    assert status == 200, answer
    assert answer["status"] == "pending"
    assert isinstance(answer["message"], str)
    return int(answer["request_id"])


async def job_of(service: RunningService, request_id: int) -> str:
    """The other id of the same job."""
    return (await service.jobs.views.view_by_seq(request_id)).job.id


async def test_a_request_is_pending_until_it_is_completed_with_its_response(service: RunningService) -> None:
    stalled = service.stall()
    running, waiting = await submit(service, "first"), await submit(service, "second")
    await service.until(await job_of(service, running), "processing")
    for request_id in (running, waiting):
        status, answer = await service.call("GET", f"/status/{request_id}")
        assert (status, answer["status"], answer["response"], answer["completed_at"]) == (200, "pending", None, None)
        assert answer["final"] is False
        assert not {"error", "result"} & answer.keys()
        assert answer["done_reason"] is None
    stalled.release()
    job_id = await job_of(service, waiting)
    await service.until(job_id, "completed")
    _, answer = await service.call("GET", f"/status/{waiting}")
    _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
    assert answer == {
        "id": waiting,
        "request_id": waiting,
        "status": "completed",
        "final": True,
        "prompt": "second",
        "model": "llama3.2",
        "response": result["result"],
        "done_reason": "stop",
        "error_message": None,
        "created_at": result["created_at"],
        "completed_at": result["finished_at"],
    }


async def test_a_long_prompt_is_whole_in_the_status(service: RunningService) -> None:
    prompt = "long " * 500
    _, answer = await service.call("GET", f"/status/{await submit(service, prompt)}")
    assert answer["prompt"] == prompt


async def test_failed_and_cancelled_are_failed_with_a_message(service: RunningService) -> None:
    service.ollama.arm(Fault(kind=FaultKind.ERROR, endpoint="/api/generate", status=400, message="bad", times=1))
    failed = await submit(service)
    await service.until(await job_of(service, failed), "failed")
    stalled = service.stall()
    cancelled = await submit(service)
    await service.call("DELETE", f"/api/v1/prompt/{await job_of(service, cancelled)}")
    stalled.release()
    messages = []
    for request_id in (failed, cancelled):
        _, answer = await service.call("GET", f"/status/{request_id}")
        assert answer["status"] == "failed"
        assert answer["completed_at"] is not None
        assert (answer["final"], answer["response"], answer["error"]) == (True, None, answer["error_message"])
        assert answer["result"].endswith(answer["error"])
        messages.append(answer["error_message"])
    assert messages[0] == "bad"
    assert "cancelled" in messages[1]


async def test_the_list_has_pages_and_the_three_statuses(service: RunningService) -> None:
    done = await submit(service, "done")
    await service.until(await job_of(service, done), "completed")
    stalled = service.stall()
    running = await submit(service, "running")
    await service.until(await job_of(service, running), "processing")
    waiting = [await submit(service, f"waiting {number}") for number in range(3)]
    gone = waiting.pop(1)
    await service.call("DELETE", f"/api/v1/prompt/{await job_of(service, gone)}")
    pending = [*reversed(waiting), running]
    for query, ids, total in (
        ({}, [waiting[1], gone, waiting[0], running, done], 5),
        ({"status": "pending"}, pending, 3),
        ({"status": "pending", "per_page": "2"}, pending[:2], 3),
        ({"status": "pending", "per_page": "2", "page": "2"}, pending[2:], 3),
        ({"status": "failed"}, [gone], 1),
        ({"status": "completed"}, [done], 1),
    ):
        status, answer = await service.call("GET", "/requests", params=query)
        assert status == 200
        assert [row["request_id"] for row in answer["requests"]] == ids, query
        per_page = int(query.get("per_page", 10))
        assert (answer["total"], answer["per_page"]) == (total, per_page)
        assert answer["total_pages"] == answer["pages"] == -(-total // per_page)
        assert answer["page"] == answer["current_page"] == int(query.get("page", 1))
        assert all(row["id"] == row["request_id"] for row in answer["requests"])
    stalled.release()


@pytest.mark.parametrize("request_id", ["1", "99999999999999999999999", "9" * 5000])
async def test_a_request_that_never_was_is_not_found(service: RunningService, request_id: str) -> None:
    status, answer = await service.call("GET", f"/status/{request_id}")
    assert status == 404
    assert "request" in answer["error"]
