"""What a client gets that repeats a request because something went wrong with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.api.context import POOL
from service.job import Job, new_job_id
from service.simulated import Fault, FaultKind
from service.store.idempotency import RequestKey, remember
from service.store.job_queries import Standing
from service.store.jobs import JobStore
from tests.jobs.test_idempotency import CHAT, KEY, SETTINGS, ask
from tests.support.access import ADMIN, service_with_keys
from tests.support.running import RunningService, service_in_process
from tests.support.store_jobs import NOW, inserted, new_job

BUSY = Fault(
    kind=FaultKind.ERROR,
    status=503,
    message="server busy, please try again.  maximum pending requests exceeded",
    times=1,
    endpoint="/api/chat",
)


async def cut_then_again(service: RunningService, key: str) -> tuple[int, bytes]:
    """Leave in the middle of a reply and ask again at once; the backend goes on when the second reply has begun."""
    before = service.ollama.observations.stalled
    stalled = service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3, times=1, endpoint="/api/chat"))
    first = asyncio.create_task(ask(service, "/api/chat", CHAT, {"Idempotency-Key": key}))
    await service.ollama.observations.until(lambda seen: seen.stalled == before + 1)
    first.cancel()
    await asyncio.wait((first,))
    async with service.session.post("/api/chat", json=CHAT, headers={"Idempotency-Key": key}) as again:
        stalled.release()
        return again.status, await again.read()


async def test_who_asks_again_right_after_a_cut_gets_a_whole_answer() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        for number in range(10):
            status, body = await cut_then_again(service, f"key {number}")
            assert status == 200
            assert b'"done":true' in body


async def test_and_also_while_the_cancel_is_on_its_way_to_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    async with service_in_process(settings=SETTINGS) as service:
        store, has_looked = service.jobs.submission._store, asyncio.Event()
        cancel, standing = store.cancel, store.queries.standing

        async def cancel_later(*arguments: Any, **options: Any) -> Job | None:
            await has_looked.wait()
            return await cancel(*arguments, **options)

        async def look(job_id: str) -> Standing | None:
            found = await standing(job_id)
            has_looked.set()
            return found

        monkeypatch.setattr(store, "cancel", cancel_later)
        monkeypatch.setattr(store.queries, "standing", look)
        status, body = await cut_then_again(service, "key")
        assert status == 200
        assert b'"done":true' in body


async def test_a_busy_reply_that_is_worth_another_try_is_not_kept() -> None:
    async with service_in_process({"queue.hold_busy": False}, SETTINGS) as service:
        service.ollama.arm(BUSY)
        first, again = [await ask(service, "/api/chat", CHAT, KEY) for _ in range(2)]
        assert (first[0], again[0]) == (503, 200)
        assert "x-should-retry" not in first[3]


async def test_a_job_that_nobody_waits_for_any_more_is_held_while_its_backend_is_busy(tmp_path: Path) -> None:
    options = {"queue.hold_busy": False}
    async with service_in_process(options, SETTINGS, folder=tmp_path) as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3, endpoint="/api/chat"))
        caller = asyncio.create_task(ask(service, "/api/chat", CHAT, {"X-On-Disconnect": "finish"}))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        await service.stop()
        await asyncio.wait((caller,))
        assert caller.exception() is not None
    async with service_in_process(options, SETTINGS, folder=tmp_path, faults=(BUSY,)) as service:
        [job] = (await service.call("GET", "/api/v1/prompts"))[1]["prompts"]
        path = f"/api/v1/prompt/{job['id']}/status?wait=30&status="
        status = job["status"]
        while status in ("queued", "processing"):
            status = (await service.call("GET", path + status))[1]["status"]
        assert status == "completed"
        assert service.ollama.observations.requests["/api/chat"] == 2


@pytest.mark.parametrize("path", ["/api/v1/prompt", "/generate"])
async def test_a_submission_is_found_again_when_its_model_is_gone(path: str) -> None:
    body = {"model": "llama3.2", "prompt": "Why?"}
    async with service_in_process(settings=SETTINGS) as service:
        first = await ask(service, path, body, KEY)
        [backend] = service.app[POOL]
        backend.note_installed(())
        again = await ask(service, path, body, KEY)
        assert (first[0], again[0]) == (202 if path == "/api/v1/prompt" else 200,) * 2
        assert again[3]["Idempotent-Replayed"] == "true"


async def test_the_tokens_of_a_job_are_counted_once_however_often_it_is_asked_for() -> None:
    async with service_with_keys() as service:
        headers = {**KEY, **ADMIN}
        totals = []
        for _ in range(3):
            assert (await ask(service, "/api/chat", CHAT, headers))[0] == 200
            totals.append((await service.call("GET", "/api/stats", headers=ADMIN))[1])
        tokens = [one["totals"]["total_tokens"] for one in totals]
        assert tokens == [tokens[0]] * 3
        assert [one["totals"]["requests"] for one in totals] == [1, 2, 3]
        assert [[row["model"] for row in one["by_model"]] for one in totals] == [["llama3.2:latest"]] * 3


async def test_jobs_are_stored_in_the_order_in_which_they_came_with_keys_or_without(store: JobStore) -> None:
    writes = []
    for number in range(6):
        job_id = new_job_id(NOW)
        also = remember(RequestKey("me", f"key {number}", "print"), job_id, NOW, None) if number % 3 else ()
        writes.append(asyncio.ensure_future(inserted(store, new_job(), job_id, also=also)))
    numbers = [job.seq for job in await asyncio.gather(*writes)]
    assert numbers == sorted(numbers)
