"""Processes that share one PostgreSQL share the work: what happens at one is done, seen and undone at the others."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.api.context import POOL
from service.config import DatabaseConfig
from service.job import Result
from service.simulated import Fault, FaultKind
from tests.live.test_stream import all_events, following, text_of
from tests.support.databases import Gateway, Place, PostgresServer, own_schema
from tests.support.processes import Service, running_service, simulated_process
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

Both = tuple[RunningService, RunningService]
BEAT_SECONDS = 0.2
DEAD_AFTER_SECONDS = 3.0
"""So many beats that a machine with other things to do is not taken for a dead process."""
QUICK_TO_JUDGE = {"database.heartbeat_seconds": BEAT_SECONDS, "database.dead_after_seconds": DEAD_AFTER_SECONDS}
CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}], "stream": False}


@asynccontextmanager
async def process_at(url: str, *, seats: int = 5) -> AsyncIterator[RunningService]:
    """A service with a backend of its own and the shared database."""
    async with service_in_process({"database.url": url}, seats=seats) as service:
        yield service


@pytest.fixture
async def both(postgres_place: Place) -> AsyncIterator[Both]:
    """Two services that share a database, each with a backend of its own."""
    url = postgres_place.config.url
    async with process_at(url) as one, process_at(url) as two:
        yield one, two


def keep_from_working(service: RunningService) -> None:
    """Whatever is submitted must be run by the other process."""
    service.app[POOL].drain("simulated")


async def result_of(service: RunningService, job_id: str) -> dict[str, Any]:
    _, answer = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
    return dict(answer)


async def test_each_job_is_run_once_whichever_process_it_came_to(both: Both) -> None:
    jobs = await asyncio.gather(*(service.submit(f"job {number}") for number in range(40) for service in both))
    await asyncio.gather(*(both[number % 2].until(job_id, "completed") for number, job_id in enumerate(jobs)))
    prompts = [prompt for service in both for prompt in service.ollama.observations.prompts]
    assert sorted(prompts) == sorted(f"job {number}" for number in range(40) for _ in both)
    assert all(service.ollama.observations.answers for service in both)
    await asyncio.gather(*(until_counted(service, completed=80, queued=0, processing=0) for service in both))


async def test_a_job_is_run_by_the_process_that_has_a_seat(both: Both) -> None:
    here, there = both
    keep_from_working(here)
    job_id = await here.submit("Hello")
    await here.until(job_id, "completed")
    assert there.ollama.observations.prompts == ["Hello"]
    assert await result_of(here, job_id) == await result_of(there, job_id)


async def test_followers_at_the_other_process_see_status_and_the_final_output(both: Both) -> None:
    here, there = both
    keep_from_working(here)
    stalled = there.stall()
    job_id = await here.submit()
    async with following(here, job_id) as listener:
        await listener.until("status")
        await there.ollama.observations.until(lambda seen: seen.stalled == 1)
        stalled.release()
        events = [event async for event in listener]
    assert events[-1].data == {"id": job_id, "status": "completed", "final": True, "done_reason": "stop"}
    assert text_of(events) == (await result_of(there, job_id))["result"]
    assert await all_events(there, job_id)


async def test_a_cancel_reaches_the_process_that_runs_the_job(both: Both) -> None:
    here, there = both
    keep_from_working(here)
    there.stall(after_tokens=3)
    job_id = await here.submit()
    await there.ollama.observations.until(lambda seen: seen.stalled == 1)
    status, answer = await here.call("DELETE", f"/api/v1/prompt/{job_id}")
    assert (status, answer["status"]) == (200, "cancelled")
    await there.ollama.observations.until(lambda seen: seen.closed_connections == 1)
    assert (await there.until(job_id, "cancelled"))["attempt"] == 1
    # What it had written is kept.
    job = (await here.jobs.views.view(job_id)).job
    result: Result | None = None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while result is None:
            found = await here.jobs.views.result(job)
            result = await found.whole() if found is not None else None
    assert result.attempt == 1
    assert result.joined("text")


async def test_both_processes_count_the_same(both: Both) -> None:
    here, there = both
    keep_from_working(here)
    keep_from_working(there)
    jobs = [await service.submit(f"job {number}") for number in range(5) for service in both]
    await here.call("DELETE", f"/api/v1/prompt/{jobs[0]}")
    await there.call("DELETE", f"/api/v1/prompt/{jobs[1]}")
    await asyncio.gather(*(until_counted(service, queued=8, cancelled=2) for service in both))
    here.app[POOL].resume("simulated")
    await asyncio.gather(*(until_counted(service, queued=0, completed=8) for service in both))


async def until_counted(service: RunningService, **counts: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        for status, count in counts.items():
            total = -1
            while total != count:
                _, answer = await service.call("GET", "/api/v1/prompts", params={"status": status})
                total = answer["total"]


async def test_a_caller_that_waits_is_answered_by_the_process_at_which_it_waits(postgres_place: Place) -> None:
    async with process_at(postgres_place.config.url, seats=1) as here, process_at(postgres_place.config.url) as there:
        stalled = here.stall(times=1)
        await asyncio.gather(*(here.submit(f"job {number}") for number in range(6)))
        await here.ollama.observations.until(lambda seen: seen.stalled == 1)
        chat = asyncio.create_task(here.call("POST", "/api/chat", CHAT))
        # The other one takes all else, and leaves that alone.
        await there.ollama.observations.until(lambda seen: seen.answers == 5)
        await until_counted(there, queued=1, processing=1)
        stalled.release()
        status, answer = await chat
        assert status == 200
        assert answer["message"]["content"]
        assert there.ollama.observations.requests["/api/chat"] == 0


async def test_a_caller_that_waits_hears_of_a_cancel_at_the_other_process(both: Both) -> None:
    here, there = both
    here.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
    chat = asyncio.create_task(here.call("POST", "/api/chat", CHAT))
    await here.ollama.observations.until(lambda seen: seen.stalled == 1)
    # The call to the backend begins while the job is on its way to the disk.
    await until_counted(there, processing=1)
    _, page = await there.call("GET", "/api/v1/prompts")
    await there.call("DELETE", f"/api/v1/prompt/{page['prompts'][0]['id']}")
    assert (await chat)[0] == 499
    await here.ollama.observations.until(lambda seen: seen.closed_connections == 1)


async def test_a_process_that_was_cut_off_catches_up(postgres_server: PostgresServer, gateway: Gateway) -> None:
    async with own_schema(postgres_server) as schema:
        near = Place(DatabaseConfig(url=postgres_server.url(schema)))
        far = postgres_server.url(schema, gateway.folder)
        async with process_at(near.config.url) as here, process_at(far) as there:
            keep_from_working(here)
            there.stall()
            job_id = await here.submit()
            await there.ollama.observations.until(lambda seen: seen.stalled == 1)
            await gateway.shut()
            await here.call("DELETE", f"/api/v1/prompt/{job_id}")
            await gateway.open()
            await there.ollama.observations.until(lambda seen: seen.closed_connections == 1)
            await until_counted(there, processing=0, cancelled=1)


async def until_counts(backend: str, what: str) -> None:
    """Until the simulated Ollama, a process of its own, has counted one of these."""
    async with asyncio.timeout(PATIENCE_SECONDS), aiohttp.ClientSession() as session:
        count = 0
        while not count:
            async with session.get(f"{backend}/simulated/state") as response:
                count = (await response.json())[what]


async def test_after_an_outage_of_the_database_nobody_is_taken_for_dead(
    postgres_server: PostgresServer, gateway: Gateway
) -> None:
    async with own_schema(postgres_server) as schema:
        url = postgres_server.url(schema, gateway.folder)
        async with (
            service_in_process({"database.url": url, **QUICK_TO_JUDGE}) as here,
            service_in_process({"database.url": url, **QUICK_TO_JUDGE}) as there,
            postgres_server.connected(schema) as operator,
        ):
            keep_from_working(here)
            stalled = there.stall()
            job_id = await here.submit()
            await there.ollama.observations.until(lambda seen: seen.stalled == 1)
            await gateway.shut()
            silence = "SELECT min(extract(epoch FROM clock_timestamp()) - heartbeat_at / 1000.0) FROM workers"
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await operator.fetchval(silence) < 1.5 * DEAD_AFTER_SECONDS:
                    await operator.execute("SELECT pg_sleep(0.05)")
                await gateway.open()
                while await operator.fetchval(silence.replace("min", "max")) > 0.5 * DEAD_AFTER_SECONDS:
                    await operator.execute("SELECT pg_sleep(0.05)")
            # Its connections come back one by one: what cannot be stored meanwhile is done again.
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (await there.call("POST", "/api/v1/prompt", {"prompt": "x", "model": "llama3.2"}))[0] != 202:
                    await operator.execute("SELECT pg_sleep(0.05)")
            stalled.release()
            # While its connections come back, it may still answer that it cannot look.
            ended = await there.look(job_id, lambda seen: seen["status"] == "completed")
            assert ended["attempt"] == 1


@asynccontextmanager
async def killable(folder: Path, place: Place, backend: str, **settings: str) -> AsyncIterator[Service]:
    """A service in a process of its own, which is thought dead soon."""
    folder.mkdir(exist_ok=True)
    times = {
        "CORRAL_DATABASE__HEARTBEAT_SECONDS": str(BEAT_SECONDS),
        "CORRAL_DATABASE__DEAD_AFTER_SECONDS": str(DEAD_AFTER_SECONDS),
    }
    async with running_service(
        folder, DATABASE_URL=place.config.url, OLLAMA_URL=backend, **times, **settings
    ) as service:
        yield service


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_jobs_of_a_process_that_is_killed_or_stopped_are_run_by_the_other(
    postgres_place: Place, tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        simulated_process(tmp_path, "--token-seconds", "60") as slow,
        killable(tmp_path / "other", postgres_place, slow) as victim,
        service_in_process({"database.url": postgres_place.config.url, **QUICK_TO_JUDGE}) as survivor,
    ):
        keep_from_working(survivor)
        job_id = await survivor.submit()
        await survivor.until(job_id, "processing")
        # The call to the backend begins after the job was claimed; a process that is killed before it makes none.
        await until_counts(slow, "in_flight")
        victim.process.send(number)
        survivor.app[POOL].resume("simulated")
        done = await survivor.until(job_id, "completed")
        assert (done["attempt"], done.get("error")) == (2, None)
        assert len(survivor.ollama.observations.prompts) == 1
        # Brought back to life, the other one learns that its attempt is void, and gives it up.
        victim.process.send(signal.SIGCONT)
        await until_counts(slow, "closed_connections")
        assert await survivor.until(job_id, "completed") == done


async def test_a_job_that_is_purged_at_one_process_is_gone_at_the_one_that_runs_it(
    both: Both, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = both
    keep_from_working(here)
    there.stall(after_tokens=3)
    job_id = await here.submit()
    await there.ollama.observations.until(lambda seen: seen.stalled == 1)
    async with following(there, job_id) as follower, following(here, job_id) as listener:
        await follower.until("output")
        status, answer = await here.call("DELETE", f"/api/v1/prompt/{job_id}?purge=true")
        assert (status, answer) == (200, {"purged": 1, "erased": False})
        for listening in (follower, listener):
            assert (await listening.until("done"))[-1].data["status"] == "cancelled"
    await there.ollama.observations.until(lambda seen: seen.closed_connections == 1)
    assert (await there.call("GET", f"/api/v1/prompt/{job_id}/status"))[0] == 404
    await asyncio.gather(*(until_counted(service, queued=0, processing=0, cancelled=0) for service in both))
    assert not there.jobs.ledger.running
    # That it has come too late with what was written is no trouble.
    assert "could not be stored" not in caplog.text


async def test_a_caller_whose_job_is_purged_at_another_process_does_not_wait_for_ever(both: Both) -> None:
    here, there = both
    keep_from_working(there)
    call = asyncio.create_task(there.call("POST", "/api/chat", CHAT))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (page := (await here.call("GET", "/api/v1/prompts"))[1])["prompts"]:
            continue
        assert (await here.call("DELETE", f"/api/v1/prompt/{page['prompts'][0]['id']}?purge=true"))[0] == 200
        assert (await call)[0] == 499
