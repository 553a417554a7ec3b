"""A key says how long the contents of its jobs are kept; then only their rows are left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from corral import AsyncClient, NotFoundError
from service.api.context import CLOCK
from tests.support.access import ADMIN, bearer, finished, headers_of, made_key, service_with_keys
from tests.support.files import texts_in
from tests.support.running import PATIENCE_SECONDS, RunningService

DAY_MS = 86_400_000
TAKEN_MS = 600_000
ASKED = {"model": "llama3.2", "prompt": "PLANTED-QUESTION", "stream": False}
DELETED = (410, "contents_deleted")


async def kept_after(service: RunningService, milliseconds: int) -> int:
    """How many jobs lose their contents when so much time has passed."""
    return await service.jobs.retention.tend(service.app[CLOCK].now_ms() + milliseconds)


async def until_taken(service: RunningService) -> None:
    """Wait until it is known that a result was taken, and let its contents go."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await kept_after(service, TAKEN_MS + 1_000):
            continue


async def only_job(service: RunningService) -> dict[str, Any]:
    _, page = await service.call("GET", "/api/v1/prompts", headers=ADMIN)
    assert page["total"] == 1
    return dict(page["prompts"][0])


async def test_contents_go_so_many_days_after_the_end_and_the_row_stays(tmp_path: Path) -> None:
    async with service_with_keys(folder=tmp_path) as service:
        user, forever = await headers_of(service, retention_days=2), await headers_of(service)
        job_id, kept = await finished(service, user), await finished(service, forever)
        seq = (await service.jobs.views.view(job_id)).job.seq
        assert (await service.call("GET", f"/api/v1/prompt/{job_id}/result", headers=user))[0] == 200
        # That it was read is of no matter to this key.
        assert await kept_after(service, 2 * DAY_MS - 60_000) == 0
        assert await kept_after(service, 2 * DAY_MS) == 1
        path = f"/api/v1/prompt/{job_id}"
        for place in ("result", "result?wait=5", "request", "stream"):
            status, answer = await service.call("GET", f"{path}/{place}", headers=user)
            assert (status, answer["code"]) == DELETED, place
        status, row = await service.call("GET", f"{path}/status", headers=user)
        assert (status, row["status"], row["prompt"]) == (200, "completed", "")
        assert row["contents_deleted_at"] >= row["finished_at"]
        _, page = await service.call("GET", "/api/v1/prompts", headers=user)
        assert page["prompts"] == [row]
        # A text that is deleted is not found, nor told of by being found.
        _, page = await service.call("GET", "/api/v1/prompts", params={"q": "Hello"}, headers=user)
        assert page["total"] == 0
        status, answer = await service.call("GET", f"/status/{seq}", headers=user)
        assert (status, answer["code"]) == DELETED
        _, page = await service.call("GET", "/requests", headers=user)
        assert [(one["status"], one["prompt"]) for one in page["requests"]] == [("completed", "")]
        assert (await service.call("GET", f"/api/v1/prompt/{kept}/result", headers=forever))[1]["prompt"] == "Hello"
        _, statistics = await service.call("GET", "/api/stats", headers=user)
        assert statistics["totals"]["successful"] == 1
        await service.call("DELETE", f"{path}?purge=true", headers=user)
        assert (await service.call("GET", f"{path}/result", headers=user))[0] == 404


async def test_the_client_library_says_so_at_once_by_an_error_of_its_tree() -> None:
    async with service_with_keys() as service:
        made = await made_key(service, retention_days=1)
        job_id = await finished(service, bearer(made["key"]))
        await kept_after(service, DAY_MS)
        async with AsyncClient(service.url, api_key=made["key"]) as client:
            job = client.job(job_id)
            for read in (job.result, job.request):
                with pytest.raises(NotFoundError, match="contents of this prompt were deleted") as raised:
                    await read()
                assert (raised.value.status_code, raised.value.attempts) == (410, 1)
            with pytest.raises(NotFoundError):
                async for _ in job.stream():
                    pass
            assert (await job.status())["status"] == "completed"


async def test_a_websocket_is_told_that_the_contents_are_deleted() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service, retention_days=1)
        job_id = await finished(service, user)
        async with service.session.ws_connect("/api/v1/ws", headers=user) as socket:
            await socket.send_json({"type": "subscribe", "channel": "jobs"})
            await socket.receive_json()
            await kept_after(service, DAY_MS)
            told = await socket.receive_json()
            assert (told["type"], told["id"], told["status"], told["prompt"]) == ("job", job_id, "completed", "")
            await socket.send_json({"type": "subscribe", "channel": "job", "id": job_id})
            told = await socket.receive_json()
            assert (told["type"], told["code"], told["id"]) == ("error", "contents_deleted", job_id)


async def test_what_an_error_quotes_goes_too_and_its_code_stays(tmp_path: Path) -> None:
    async with service_with_keys(folder=tmp_path) as service:
        user = await headers_of(service, retention_days=1)
        status, job = await service.call(
            "POST", "/generate", {"prompt": "PLANTED-QUESTION", "model": "llama3.2"}, headers=user
        )
        job_id = (await only_job(service))["id"]
        await service.call("DELETE", f"/api/v1/prompt/{job_id}", headers=user)
        assert await kept_after(service, DAY_MS + 60_000) == 1
        assert texts_in(tmp_path, ["PLANTED-QUESTION"]) == {}
        row = await only_job(service)
        if row["status"] == "cancelled":
            assert row["error"] == {"code": "cancelled", "message": None}
            status, told = await service.call("GET", f"/status/{job['request_id']}", headers=user)
            assert (status, told["status"], told["prompt"], told["response"]) == (200, "failed", "", None)
            assert told["error_message"].startswith("cancelled: the contents")


DOORS = {
    "result": "/api/v1/prompt/{id}/result",
    "stream": "/api/v1/prompt/{id}/stream",
    "requests": "/status/{seq}",
}


@pytest.mark.parametrize("door", [*DOORS, "drop-in", "drop-in stream", "repeated", "websocket"])
async def test_a_key_that_keeps_nothing_keeps_a_result_ten_minutes_after_it_was_sent_whole(
    door: str, tmp_path: Path
) -> None:
    async with service_with_keys(folder=tmp_path) as service:
        user = await headers_of(service, retention_days=0)
        if door in ("drop-in", "drop-in stream", "repeated"):
            headers = user | ({"Idempotency-Key": "1"} if door == "repeated" else {})
            body = ASKED | {"stream": door == "drop-in stream"}
            async with service.session.post("/api/generate", json=body, headers=headers) as response:
                assert response.status == 200
                await response.read()
        else:
            _, job = await service.call("POST", "/api/v1/prompt", {"prompt": ASKED["prompt"]}, headers=user)
            for known in ("queued", "processing"):
                query = {"wait": "60", "status": known}
                await service.call("GET", f"/api/v1/prompt/{job['id']}/status", params=query, headers=user)
            seq = (await service.jobs.views.view(job["id"])).job.seq
            # Neither a head without its body nor the look of an admin is a delivery.
            for path in DOORS.values():
                async with service.session.head(path.format(id=job["id"], seq=seq), headers=user) as response:
                    assert response.status in (200, 405)
            await service.call("GET", f"/api/v1/prompt/{job['id']}/result", headers=ADMIN)
            assert await kept_after(service, TAKEN_MS + 1_000) == 0
            if door == "websocket":
                async with service.session.ws_connect("/api/v1/ws", headers=user) as socket:
                    await socket.send_json({"type": "subscribe", "channel": "job", "id": job["id"]})
                    while (await socket.receive_json())["type"] != "done":
                        continue
            else:
                path = DOORS[door].format(id=job["id"], seq=seq)
                async with service.session.get(path, headers=user) as response:
                    assert response.status == 200
                    await response.read()
        job_id = (await only_job(service))["id"]
        _, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result?wait=60", headers=ADMIN)
        texts = [str(ASKED["prompt"]), result["result"][:60]]
        assert set(texts_in(tmp_path, texts)) == set(texts)
        assert await kept_after(service, TAKEN_MS - 60_000) == 0
        await until_taken(service)
        status, answer = await service.call("GET", f"/api/v1/prompt/{job_id}/result", headers=user)
        assert (status, answer["code"]) == DELETED
        assert texts_in(tmp_path, texts) == {}


async def test_what_nobody_takes_goes_after_a_day() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service, retention_days=0)
        await finished(service, user)
        assert await kept_after(service, DAY_MS - 60_000) == 0
        assert await kept_after(service, DAY_MS) == 1


async def test_an_idempotency_key_replays_until_the_contents_go_and_then_makes_another_job() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service, retention_days=0)
        first, again, new = user | {"Idempotency-Key": "1"}, "Idempotent-Replayed", []
        for _ in range(2):
            async with service.session.post("/api/generate", json=ASKED, headers=first) as response:
                new.append((response.headers.get(again), await response.json()))
        assert new[0] == (None, new[1][1])
        assert new[1][0] == "true"
        await until_taken(service)
        async with service.session.post("/api/generate", json=ASKED, headers=first) as response:
            assert (response.status, response.headers.get(again)) == (200, None)
        _, page = await service.call("GET", "/api/v1/prompts", headers=user)
        assert [job["prompt"] for job in page["prompts"]] == [ASKED["prompt"], ""]


async def test_a_job_that_was_cancelled_while_it_waited_is_kept_a_day() -> None:
    async with service_with_keys(seats=1) as service:
        service.stall()
        user = await headers_of(service)
        _, first = await service.call("POST", "/api/v1/prompt", {"prompt": "first"}, headers=user)
        await service.until(first["id"], "processing", headers=user)
        ids = [(await service.call("POST", "/api/v1/prompt", {"prompt": "x"}, headers=user))[1]["id"] for _ in range(3)]
        for job_id in (ids[0], first["id"]):
            await service.call("DELETE", f"/api/v1/prompt/{job_id}", headers=user)
        assert await kept_after(service, DAY_MS - 60_000) == 0
        assert await kept_after(service, DAY_MS + 1_000) == 1
        assert (await service.call("GET", f"/api/v1/prompt/{ids[0]}/request", headers=user))[0] == 410
        # One that ran has used a backend; those that wait are not touched.
        assert (await service.call("GET", f"/api/v1/prompt/{first['id']}/request", headers=user))[0] == 200
        assert (await service.call("GET", f"/api/v1/prompt/{ids[2]}/request", headers=user))[0] == 200


async def test_the_retention_of_a_key_is_said_and_checked() -> None:
    async with service_with_keys() as service:
        made = await made_key(service, retention_days=0)
        assert made["retention_days"] == 0
        for wrong in (-1, 1.5, "1", True, 40_000):
            body = {"name": "x", "retention_days": wrong}
            status, answer = await service.call("POST", "/api/keys", body, headers=ADMIN)
            assert (status, answer["field"]) == (400, "retention_days")
        token = await service.call("POST", "/api/token", headers=bearer(made["key"]))
        # What is asked with a token is the key's, too.
        await finished(service, bearer(token[1]["access_token"]))
        assert await kept_after(service, DAY_MS) == 1
