"""The log of requests and the statistics that are drawn from it, over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from service.api.access.request_log import REQUEST_LOGGING
from service.endpoints import JOB_PATHS
from service.store.request_log import LogRow
from tests.support.access import (
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
from tests.support.log_rows import written
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}]}


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
                job = (await service.jobs.views.view(response.headers["X-Job-Id"])).job
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
    usage = service.app[REQUEST_LOGGING].log
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
