"""A prompt that finds a free seat is with the backend while its row is on its way to the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.errors import CannotStoreError, ServiceError
from service.job import Job, NewJob
from service.live.hub import JOBS, JobChanged
from service.store.database import Settle, Statement, Written
from service.store.job_statements import INSERT
from service.store.jobs import JobStore
from service.store.sqlite.database import SqliteDatabase
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

FIRST = "first of all"
NEW = NewJob("prompts", "/api/generate", "llama3.2", '{"model":"llama3.2","prompt":"hello"}', "hello")


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process(seats=1) as running:
        yield running


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[JobChanged] = []
        self.ended = asyncio.Event()

    def receive(self, event: JobChanged) -> None:
        self.events.append(event)
        if event.job.is_final:
            self.ended.set()


class HeldDisk:
    """Rows of new jobs wait here on their way to the disk; an ``error`` is what becomes of them."""

    @classmethod
    async def of(cls, service: RunningService, monkeypatch: pytest.MonkeyPatch) -> HeldDisk:
        """The disk of a service whose backend is known to answer."""
        await service.finished(FIRST)
        return cls(monkeypatch)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.goes_on = asyncio.Event()
        self.error: ServiceError | None = None
        self._held: list[asyncio.Task[None]] = []
        write = SqliteDatabase.write

        def held(database: SqliteDatabase, *statements: Statement, settle: Settle | None = None, **how: Any) -> Written:
            if settle is None or statements[0].sql is not INSERT:
                return write(database, *statements, settle=settle, **how)
            written: Written = asyncio.get_running_loop().create_future()

            async def go_on(settle: Settle = settle) -> None:
                await self.goes_on.wait()
                if self.error is not None:
                    settle([], self.error)
                    written.set_exception(self.error)
                    return
                answers = await write(database, *statements, settle=settle, **how)
                if not written.done():
                    written.set_result(answers)

            self._held.append(asyncio.create_task(go_on()))
            return written

        monkeypatch.setattr(SqliteDatabase, "write", held)


async def test_a_prompt_that_finds_a_free_seat_is_asked_for_while_it_is_on_its_way_to_the_disk(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, heard = await HeldDisk.of(service, monkeypatch), Listener()
    service.hub.subscribe(JOBS, heard)
    submitting = asyncio.create_task(service.call("POST", "/api/v1/prompt", {"prompt": "hello"}))
    await service.ollama.observations.until(lambda seen: seen.answers == 2)
    assert not submitting.done()
    _, listed = await service.call("GET", "/api/v1/prompts")
    assert [prompt["prompt"] for prompt in listed["prompts"]] == [FIRST]
    assert heard.events == []
    disk.goes_on.set()
    status, answer = await submitting
    assert status == 202
    assert (answer["status"], answer["position"]) == ("queued", 1)
    job = await service.until(answer["id"], "completed")
    assert (job["attempt"], job["failures"]) == (1, 0)
    assert [(event.job.status, event.position) for event in heard.events] == [
        ("queued", 1),
        ("processing", None),
        ("completed", None),
    ]
    assert service.ollama.observations.prompts == [FIRST, "hello"]


async def test_a_prompt_that_cannot_be_stored_is_not_asked_for_any_longer(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = await HeldDisk.of(service, monkeypatch)
    disk.error = CannotStoreError("the disk is full")
    service.stall(times=1)
    submitting = asyncio.create_task(service.call("POST", "/api/v1/prompt", {"prompt": "hello"}))
    await service.ollama.observations.until(lambda seen: seen.stalled == 1)
    disk.goes_on.set()
    status, answer = await submitting
    assert (status, answer["error"]) == (503, "the disk is full")
    await service.ollama.observations.until(lambda seen: seen.closed_connections == 1)
    assert (await service.call("GET", "/api/v1/prompts"))[1]["total"] == 1
    assert (await service.call("POST", "/api/v1/prompt", {"prompt": "as long as that lasts"}))[0] == 503
    disk.error = None
    await service.finished("the seat is free again")
    assert service.ollama.observations.prompts == [FIRST, "hello", "the seat is free again"]


async def test_an_answer_to_a_prompt_that_cannot_be_stored_is_thrown_away(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = await HeldDisk.of(service, monkeypatch)
    disk.error = CannotStoreError("the disk is full")
    ended: list[str] = []
    finish = JobStore.finish

    async def noted(store: JobStore, job: Job, *arguments: Any, **how: Any) -> Job | None:
        ended.append(job.preview)
        return await finish(store, job, *arguments, **how)

    monkeypatch.setattr(JobStore, "finish", noted)
    submitting = asyncio.create_task(service.call("POST", "/api/v1/prompt", {"prompt": "hello"}))
    await service.ollama.observations.until(lambda seen: seen.answers == 2)
    for _ in range(5):
        # Meanwhile the worker has read all of it.
        await service.call("GET", "/api/version")
    disk.goes_on.set()
    assert (await submitting)[0] == 503
    disk.error = None
    await service.finished("the seat is free again")
    assert ended == ["the seat is free again"]


async def test_a_prompt_whose_caller_is_cut_off_on_its_way_to_the_disk_runs_all_the_same(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, heard = await HeldDisk.of(service, monkeypatch), Listener()
    service.hub.subscribe(JOBS, heard)
    submitting = asyncio.create_task(service.jobs.submission.submit(NEW))
    await service.ollama.observations.until(lambda seen: seen.answers == 2)
    submitting.cancel()
    await asyncio.wait((submitting,))
    disk.goes_on.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await heard.ended.wait()
    assert [event.job.status for event in heard.events] == ["queued", "processing", "completed"]
    assert (await service.call("GET", "/api/v1/prompts"))[1]["total"] == 2


async def test_a_prompt_behind_another_waits_for_its_turn(service: RunningService) -> None:
    stall = service.stall()
    await service.submit("first")
    await service.ollama.observations.until(lambda seen: seen.stalled == 1)
    places = []
    for prompt in ("second", "third"):
        _, answer = await service.call("POST", "/api/v1/prompt", {"prompt": prompt})
        places.append((answer["status"], answer["position"]))
    assert places == [("queued", 1), ("queued", 2)]
    stall.release()
    await service.until(answer["id"], "completed")
    assert service.ollama.observations.prompts == ["first", "second", "third"]
