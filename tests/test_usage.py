"""The log of requests and the statistics that are drawn from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.api.accounting import JOB_PATHS, USAGE
from service.clock import Clock
from service.errors import CannotStoreError
from service.hub import Hub, JobChanged
from service.keys import Keys
from service.maintenance import prune_regularly
from service.store.database import Database
from service.store.jobs import JobStore
from service.store.keys import KeyStore
from service.store.usage import LogRow, Scope, Sums, UsageStore
from service.usage import Usage
from tests.access import (
    ADMIN,
    DOORS,
    HOUR_MS,
    PROMPT,
    bearer,
    finished,
    headers_of,
    let_pass,
    made_key,
    service_with_keys,
)
from tests.running import PATIENCE_SECONDS, RunningService, service_in_process
from tests.store_jobs import NOW, claimed

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}]}


def row(**fields: Any) -> LogRow:
    """A request that was answered well."""
    values: dict[str, Any] = {
        "at": NOW, "key_id": "k1", "owner": "key:k1", "endpoint": "/api/chat", "method": "POST", "status_code": 200,
        "model": "llama3.2:latest", "job_id": None, "job_status": None, "prompt_tokens": None,
        "completion_tokens": None, "response_ms": 10, "queue_ms": None, **fields,
    }  # fmt: skip
    return LogRow(**values)


@pytest.fixture
def log(database: Database) -> UsageStore:
    return UsageStore(database)


async def usage_of(store: UsageStore, database: Database) -> Usage:
    return Usage(store, await Keys.open(KeyStore(database), Clock()), Clock())


async def written(database: Database) -> list[LogRow]:
    """The log as it is stored, oldest first."""
    columns = ", ".join(LogRow._fields)
    return [LogRow(*found) for found in await database.read(f"SELECT {columns} FROM usage_log ORDER BY seq", {})]


async def appended(log: UsageStore, *rows: LogRow) -> None:
    await log.append(rows)


# The store


async def test_rows_are_stored_as_they_are_however_many_come_together(log: UsageStore, database: Database) -> None:
    rows = [row(at=NOW + number, owner=f"{number}") for number in range(123)]
    awkward = row(owner="\ud800\0wörter", model="a\0b", key_id=None, job_id="j", queue_ms=1)
    await appended(log, *rows, awkward)
    *same, last = await written(database)
    assert same == rows
    assert last == awkward._replace(owner="��wörter", model="a�b")


async def test_a_job_that_ends_later_completes_its_row(log: UsageStore, database: Database, store: JobStore) -> None:
    running = await claimed(store)
    await appended(log, row(job_id=running.id), row(job_id="another"))
    ended = running._replace(status="failed", prompt_tokens=3, completion_tokens=4, finished_at=NOW)
    await log.end([ended])
    first, second = await written(database)
    assert (first.job_status, first.prompt_tokens, first.completion_tokens, first.queue_ms) == ("failed", 3, 4, 0)
    assert second == row(job_id="another")


async def test_sums_are_drawn_by_key_model_and_day(log: UsageStore) -> None:
    day = 86_400_000
    await appended(
        log,
        row(prompt_tokens=1, completion_tokens=10, job_status="completed"),
        row(at=NOW + day, prompt_tokens=2, completion_tokens=20),
        row(status_code=429, model=None),
        row(job_status="failed", model="mistral:latest"),
        row(job_status="cancelled", model="mistral:latest"),
        row(key_id=None, owner="192.0.2.1", prompt_tokens=4),
        row(at=NOW - 1, prompt_tokens=1000),
    )
    groups = {(one.key_id, one.model, one.day): one.sums for one in await log.groups(Scope(), NOW)}
    today = NOW // day
    assert groups == {
        ("k1", "llama3.2:latest", today): Sums(1, 1, 1, 10),
        ("k1", "llama3.2:latest", today + 1): Sums(1, 1, 2, 20),
        ("k1", None, today): Sums(1, 0, 0, 0),
        ("k1", "mistral:latest", today): Sums(2, 0, 0, 0),
        (None, "llama3.2:latest", today): Sums(1, 1, 4, 0),
    }
    assert sum(one.sums.requests for one in await log.groups(Scope(key_id="k1"), NOW)) == 5
    assert sum(one.sums.requests for one in await log.groups(Scope(owner="192.0.2.1"), NOW)) == 1
    assert await log.owners(Scope(), NOW) == [("key:k1", Sums(5, 2, 3, 30)), ("192.0.2.1", Sums(1, 1, 4, 0))]


async def test_percentiles_are_response_times_that_were_measured(log: UsageStore, database: Database) -> None:
    usage = await usage_of(log, database)
    assert (await usage.statistics(Scope())).response_ms == {}
    await appended(log, *(row(response_ms=number) for number in range(200, 0, -1)))
    assert (await usage.statistics(Scope())).response_ms == {"p50": 100, "p95": 190, "p99": 198}
    assert (await usage.statistics(Scope(key_id="nobody"))).response_ms == {}


async def test_old_rows_are_pruned_in_batches(log: UsageStore, database: Database) -> None:
    await appended(log, *(row(at=NOW + number) for number in range(10)))
    assert [await log.prune(NOW + 5, most=3) for _ in range(3)] == [3, 2, 0]
    assert [one.at for one in await written(database)] == [NOW + number for number in range(5, 10)]


async def test_pruning_goes_by_the_configured_days(log: UsageStore, database: Database) -> None:
    usage, clock = await usage_of(log, database), Clock()
    now, day = clock.now_ms(), 86_400_000
    await appended(log, row(at=now - 91 * day), row(at=now - 89 * day))
    pruned = asyncio.Event()

    async def prune(before: int) -> int:
        count = await usage.prune(before)
        if not count:
            pruned.set()
        return count

    task = asyncio.create_task(prune_regularly(prune, clock, 90))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await pruned.wait()
    task.cancel()
    assert [one.at for one in await written(database)] == [now - 89 * day]


# The log in memory


class FailingStore(UsageStore):
    """A log whose database takes nothing for a while."""

    is_full = True

    def append(self, rows: Sequence[LogRow]) -> Awaitable[object]:
        if not self.is_full:
            return super().append(rows)
        refused: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        refused.set_exception(CannotStoreError("the disk is full"))
        return refused


async def test_what_cannot_be_written_waits_and_is_written_later_in_its_order(
    database: Database, store: JobStore
) -> None:
    failing = FailingStore(database)
    usage = await usage_of(failing, database)
    running = await claimed(store)
    usage.record(row(job_id=running.id))
    with pytest.raises(CannotStoreError):
        await usage.flush()
    usage.record(row(owner="second"))
    hub = Hub()
    async with usage.listening(hub):
        hub.publish(running._replace(status="completed", prompt_tokens=7, finished_at=NOW))
        failing.is_full = False
    first, second = await written(database)
    assert (first.job_id, first.job_status, first.prompt_tokens) == (running.id, "completed", 7)
    assert second.owner == "second"


@pytest.mark.parametrize("has_old_row", [True, False])
async def test_every_row_of_a_job_learns_how_it_ended_whenever_its_request_is_answered(
    log: UsageStore, database: Database, store: JobStore, has_old_row: bool
) -> None:
    usage = await usage_of(log, database)
    job = (await claimed(store))._replace(created_at=Clock().now_ms() + (-10_000 if has_old_row else 10_000))
    requests = 4 if has_old_row else 3
    for _ in range(requests):
        usage.expect(job)
    if has_old_row:
        usage.record(row(job_id=job.id))
        await usage.flush()
    usage.record(row(job_id=job.id))
    ended = job._replace(status="completed", prompt_tokens=7)
    usage.receive(JobChanged(ended))
    usage.record(row(job_id=job.id))
    await usage.flush()
    usage.record(row(job_id=job.id))
    # And one that finds the job when it has ended.
    usage.expect(ended)
    usage.record(row(job_id=job.id))
    await usage.flush()
    rows = await written(database)
    assert [(one.job_status, one.prompt_tokens) for one in rows] == [("completed", 7)] * (requests + 1)


async def test_a_row_that_the_database_refuses_costs_no_other(log: UsageStore, database: Database) -> None:
    usage = await usage_of(log, database)
    usage.record(row(owner="first"))
    usage.record(row(response_ms=None))
    usage.record(row(owner="last"))
    await usage.flush()
    assert [one.owner for one in await written(database)] == ["first", "last"]


async def test_what_waits_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.usage._MOST_WAITING", 3)
    failing = FailingStore(database)
    usage = await usage_of(failing, database)
    for number in range(10):
        usage.record(row(owner=f"{number}"))
    with pytest.raises(CannotStoreError):
        await usage.flush()
    for number in range(10, 20):
        usage.record(row(owner=f"{number}"))
    failing.is_full = False
    await usage.flush()
    assert len(await written(database)) == 3


async def test_a_request_costs_no_write_of_its_own(log: UsageStore, database: Database) -> None:
    usage = await usage_of(log, database)
    for number in range(100):
        usage.record(row(owner=f"{number}"))
    assert await written(database) == []
    await usage.flush()
    assert len(await written(database)) == 100


# Over HTTP


async def logged(service: RunningService, headers: dict[str, str] = ADMIN) -> dict[str, Any]:
    status, answer = await service.call("GET", "/api/stats", headers=headers)
    assert status == 200, answer
    return dict(answer)


async def test_each_request_of_a_job_route_is_one_row_with_what_it_took() -> None:
    async with service_with_keys() as service:
        made = await made_key(service)
        user = bearer(made["key"])
        job_id = await finished(service, user)
        for stream in (False, True):
            async with service.session.post("/api/chat", json={**CHAT, "stream": stream}, headers=user) as response:
                await response.read()
                job = (await service.jobs.view(response.headers["X-Job-Id"])).job
        assert (await service.call("POST", "/v1/chat/completions", {"model": ""}, headers=user))[0] >= 400
        assert (await service.call("POST", "/api/v1/prompt", {"prompt": "x"}))[0] == 401
        rows = await rows_of(service)
        # Who was refused for want of a key is not in it, and cannot fill the disk.
        assert [(one.endpoint, one.method, one.status_code) for one in rows] == [
            ("/api/v1/prompt", "POST", 202),
            ("/api/chat", "POST", 200),
            ("/api/chat", "POST", 200),
            ("/v1/chat/completions", "POST", rows[3].status_code),
        ]
        assert {(one.key_id, one.owner) for one in rows} == {(made["id"], f"key:{made['id']}")}
        assert (rows[0].job_id, rows[2].job_id) == (job_id, job.id)
        for one in rows[:3]:
            assert (one.model, one.job_status) == ("llama3.2:latest", "completed")
            assert (one.prompt_tokens or 0) > 0
            assert (one.completion_tokens or 0) > 0
            assert one.response_ms >= 0
            assert (one.queue_ms or 0) >= 0


async def rows_of(service: RunningService) -> list[LogRow]:
    usage = service.app[USAGE]
    await usage.flush()
    return await written(usage._store._database)


async def test_tokens_are_counted_once_the_job_has_ended() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service)
        fault = service.stall()
        _, answer = await service.call("POST", "/api/v1/prompt", {"prompt": "x"}, headers=user)
        assert (await logged(service))["totals"]["completion_tokens"] == 0
        fault.release()
        known = "queued"
        while known in ("queued", "processing"):
            query = {"wait": str(PATIENCE_SECONDS), "status": known}
            path = f"/api/v1/prompt/{answer['id']}/status"
            known = (await service.call("GET", path, params=query, headers=user))[1]["status"]
        totals = (await logged(service))["totals"]
        assert totals["completion_tokens"] > 0
        assert totals["total_tokens"] == totals["prompt_tokens"] + totals["completion_tokens"]


async def test_a_failed_job_is_a_failed_request() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service)
        await finished(service, user)
        service.stall()
        _, answer = await service.call("POST", "/api/v1/prompt", {"prompt": "x"}, headers=user)
        await service.call("DELETE", f"/api/v1/prompt/{answer['id']}", headers=user)
        totals = (await logged(service))["totals"]
        assert (totals["requests"], totals["successful"], totals["failed"]) == (2, 1, 1)


async def test_a_user_sees_its_own_statistics_and_an_admin_all() -> None:
    async with service_with_keys() as service:
        one, two = await made_key(service, name="one"), await made_key(service, name="two")
        await finished(service, bearer(one["key"]))
        for _ in range(2):
            await finished(service, bearer(two["key"]))
        own = await logged(service, bearer(one["key"]))
        assert own["totals"]["requests"] == 1
        assert [entry["name"] for entry in own["by_key"]] == ["one"]
        everything = await logged(service)
        assert everything["totals"]["requests"] == 3
        assert set(everything["totals"]["response_seconds"]) == {"p50", "p95", "p99"}
        assert [(entry["name"], entry["requests"]) for entry in everything["by_key"]] == [("two", 2), ("one", 1)]
        assert [(entry["model"], entry["requests"]) for entry in everything["by_model"]] == [("llama3.2:latest", 3)]
        [today] = everything["by_day"]
        assert (len(today["day"]), today["requests"]) == (10, 3)


async def test_people_behind_a_key_are_told_apart() -> None:
    async with service_with_keys() as service:
        made = await made_key(service, owner_header="X-User")
        for user in ("anna", "ben", "anna"):
            await finished(service, bearer(made["key"]) | {"X-User": user})
        owners = {entry["owner"]: entry["requests"] for entry in (await logged(service))["by_owner"]}
        assert owners == {f"key:{made['id']}/anna": 2, f"key:{made['id']}/ben": 1}


async def test_without_a_key_the_statistics_are_those_of_the_address() -> None:
    async with service_with_keys({"server.trusted_proxies": ["127.0.0.1"]}, required=False) as service:
        await finished(service, {"X-Forwarded-For": "203.0.113.1"})
        await finished(service, await headers_of(service))
        for address, requests in (("203.0.113.1", 1), ("203.0.113.2", 0)):
            assert (await logged(service, {"X-Forwarded-For": address}))["totals"]["requests"] == requests
        assert (await logged(service))["totals"]["requests"] == 2


async def test_a_reset_begins_a_new_period_and_deletes_nothing(tmp_path: Path) -> None:
    async with service_with_keys(folder=tmp_path) as service:
        user = await headers_of(service)
        await finished(service, user)
        assert (await logged(service))["period_started_at"] is None
        let_pass(service, HOUR_MS)
        status, answer = await service.call("POST", "/api/stats/reset", headers=ADMIN)
        assert status == 200
        for headers in (user, ADMIN):
            stats = await logged(service, headers)
            assert stats["period_started_at"] == answer["period_started_at"]
            assert (stats["totals"]["requests"], stats["by_key"], stats["by_day"]) == (0, [], [])
        let_pass(service, 1000)
        await finished(service, user)
        assert (await logged(service))["totals"]["requests"] == 1
        assert len(await rows_of(service)) == 2
    async with service_with_keys(folder=tmp_path) as service:
        assert (await logged(service))["totals"]["requests"] == 1


async def test_a_stop_writes_down_what_had_not_been_written_yet(tmp_path: Path) -> None:
    async with service_in_process(folder=tmp_path) as service:
        await service.finished()
    async with service_in_process(folder=tmp_path) as service:
        [one] = await rows_of(service)
        assert (one.status_code, one.job_status) == (202, "completed")


async def test_a_caller_that_leaves_is_written_down() -> None:
    async with service_with_keys() as service:
        service.stall()
        request = service.session.post("/api/generate", json=PROMPT, headers=ADMIN)
        async with request as response:
            await response.content.readany()
            response.close()
            job_id = response.headers["X-Job-Id"]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (rows := await rows_of(service)) or rows[0].job_status is None:
                await service.call("GET", "/health")
        assert (rows[0].job_id, rows[0].job_status) == (job_id, "cancelled")


async def test_every_route_that_makes_jobs_is_in_the_log() -> None:
    async with service_with_keys() as service:
        posts = {
            route.resource.canonical
            for route in service.app.router.routes()
            if route.method == "POST" and route.resource is not None
        }
        assert posts >= JOB_PATHS
        bodies = {path: body for path, body, _ in DOORS}
        for path in sorted(posts):
            if "{" not in path:
                async with service.session.post(path, json=bodies.get(path, {}), headers=ADMIN) as response:
                    await response.read()
        with_job = {one.endpoint for one in await rows_of(service) if one.job_id is not None}
        assert set(bodies) == with_job <= JOB_PATHS
