"""A revoked key ends what it has asked for, unless it is told not to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from service.api.access.auth import AUTH
from service.api.context import REVOCATIONS
from service.api.long_lived import LongLived
from service.audit import START
from service.clock import Clock
from service.key import Key, NewKey, Role
from service.keys.keyring import DEMO_KEYS, Keyring
from service.simulated import Fault, FaultKind
from service.store.database import Database
from service.store.keys import KeyStore
from service.store.opening import open_database
from tests.support.access import ADMIN, bearer, finished, made_key, service_with_keys
from tests.support.databases import Place
from tests.support.running import PATIENCE_SECONDS, RunningService
from tests.support.store_jobs import new_job

WORDS = "this API key was revoked; ask an admin for another"
LATER = time.time() + 86_400
CALLS = {
    "/api/chat": {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}], "stream": False},
    "/api/generate": {"model": "llama3.2", "prompt": "Hello"},
    "/v1/chat/completions": {"model": "llama3.2", "messages": [{"role": "user", "content": "Hello"}]},
    "/v1/messages": {"model": "llama3.2", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]},
}


async def submitted(service: RunningService, headers: dict[str, str], **fields: object) -> str:
    status, job = await service.call("POST", "/api/v1/prompt", {"prompt": "Hello", **fields}, headers=headers)
    assert status == 202, job
    return str(job["id"])


async def ended(service: RunningService, job_id: str) -> tuple[str, str | None]:
    """The status of a job, and the code of its error."""
    job = (await service.jobs.views.view(job_id)).job
    return job.status, job.error_code


async def test_when_a_revocation_is_answered_no_job_of_the_key_is_queued_or_runs() -> None:
    async with service_with_keys() as service:
        made, other = await made_key(service), await made_key(service)
        service.stall(model="llama3.2")
        user = bearer(made["key"])
        jobs = [await submitted(service, user) for _ in range(20)]
        jobs.append(await submitted(service, user, not_before=LATER))
        kept = await submitted(service, bearer(other["key"]), not_before=LATER)
        status, answer = await service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
        assert (status, answer["is_active"]) == (200, False)
        assert {await ended(service, job_id) for job_id in jobs} == {("cancelled", "revoked")}
        assert (await ended(service, kept))[0] == "queued"


class SlowlyRead(KeyStore):
    """The keys, of which the first list comes late: it is read, and arrives when it ``may_arrive``."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.is_read, self.may_arrive = asyncio.Event(), asyncio.Event()

    async def all(self) -> list[tuple[str, Key]]:
        rows = await super().all()
        if not self.is_read.is_set():
            self.is_read.set()
            await self.may_arrive.wait()
        return rows


async def test_no_older_list_of_keys_brings_a_revoked_key_back(database: Database) -> None:
    store = SlowlyRead(database)
    key, _ = await (await Keyring.open(KeyStore(database), Clock())).create(NewKey("one"), by=START)
    keys = Keyring(store, b"", Clock())
    async with asyncio.timeout(PATIENCE_SECONDS):
        looking = asyncio.create_task(keys.refresh())
        await store.is_read.wait()
        revoking = asyncio.create_task(keys.revoke(key.id, keeps_jobs=True, by=START))
        while (await KeyStore(database).all())[0][1].is_active:
            continue
        # It would be read again by now, did that not wait for its turn.
        for _ in range(20):
            await KeyStore(database).all()
        store.may_arrive.set()
        await asyncio.gather(looking, revoking)
    assert not keys.is_good(key)


async def test_jobs_on_their_way_to_the_disk_are_waited_for_however_large_they_are() -> None:
    async with service_with_keys(seats=1) as service:
        service.stall(after_tokens=0)
        made, jobs = await made_key(service), service.jobs
        request = json.dumps({"model": "llama3.2", "prompt": "x" * (3 << 20)})
        large = new_job("x", request=request, owner=f"key:{made['id']}", key_id=made["id"])
        # As many as several commits take.
        entered = [jobs.submission.enter(large) for _ in range(16)]
        await service.app[REVOCATIONS].revoke(made["id"], keeps_jobs=False, by=START)
        stored = [await ended(service, one.view.job.id) for one in entered]
        assert set(stored) == {("cancelled", "revoked")}


async def test_jobs_that_come_while_the_key_is_revoked_are_refused_or_ended() -> None:
    async with service_with_keys() as service:
        made = await made_key(service)
        user, fault = bearer(made["key"]), service.stall()

        async def submit() -> int:
            return (await service.call("POST", "/api/v1/prompt", {"prompt": "Hello"}, headers=user))[0]

        submissions = [asyncio.create_task(submit()) for _ in range(100)]
        revoking = asyncio.create_task(service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN))
        submissions += [asyncio.create_task(submit()) for _ in range(100)]
        assert (await revoking)[0] == 200
        _, prompts = await service.call("GET", "/api/v1/prompts", params={"status": "queued"}, headers=ADMIN)
        assert prompts["total"] == 0
        statuses = await asyncio.gather(*submissions)
        assert set(statuses) <= {202, 401}
        fault.release()
        _, prompts = await service.call("GET", "/api/v1/prompts", headers=ADMIN)
        assert prompts["total"] == statuses.count(202)
        assert {job["status"] for job in prompts["prompts"]} <= {"cancelled"}


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("repeatable", [False, True])
async def test_who_waits_for_an_answer_gets_what_the_key_now_gets(path: str, repeatable: bool) -> None:
    async with service_with_keys(seats=1) as service:
        made = await made_key(service)
        headers = bearer(made["key"]) | ({"Idempotency-Key": "1"} if repeatable else {})
        service.stall(after_tokens=0)
        blocking = await submitted(service, ADMIN)
        call = asyncio.create_task(service.call("POST", path, CALLS[path], headers=headers))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await service.call("GET", "/api/v1/prompts", headers=ADMIN))[1]["total"] < 2:
                continue
        await service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
        async with asyncio.timeout(PATIENCE_SECONDS):
            status, answer = await call
        assert status == 401
        assert WORDS in str(answer)
        now_gets, _ = await service.call("POST", path, CALLS[path], headers=headers)
        assert now_gets == status
        assert (await ended(service, blocking))[0] == "processing"


async def test_a_demo_key_that_is_used_again_repeats_no_refusal() -> None:
    text, call = "a-demo-key-of-a-user", {"model": "llama3.2", "prompt": "Hello", "stream": False}
    async with service_with_keys({"auth.demo_user_key": text}) as service:
        fault, headers = service.stall(after_tokens=0), bearer(text) | {"Idempotency-Key": "1"}
        keys = service.app[AUTH].keys
        calling = asyncio.create_task(service.call("POST", "/api/generate", call, headers=headers))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        await service.app[REVOCATIONS].revoke(DEMO_KEYS[Role.USER], keeps_jobs=False, by=START)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await calling)[0] == 401
        fault.release()
        # As the next start does.
        await keys.keep_demo_key(Role.USER, text)
        assert (await service.call("POST", "/api/generate", call, headers=headers))[0] == 200


async def test_a_call_whose_body_came_after_the_revocation_makes_no_job() -> None:
    async with service_with_keys() as service:
        made = await made_key(service)
        came = asyncio.Event()

        async def body() -> object:
            yield b'{"model": "llama3.2", '
            await came.wait()
            yield b'"prompt": "Hello"}'

        async def call() -> int:
            async with service.session.post("/api/generate", data=body(), headers=bearer(made["key"])) as response:
                return response.status

        calling = asyncio.create_task(call())
        await finished(service, bearer(made["key"]))
        await service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
        came.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await calling == 401
        assert (await service.call("GET", "/api/v1/prompts", headers=ADMIN))[1]["total"] == 1


BEGUN = {
    "/api/keys": b'{"name": "begun", "role": "admin"}',
    "/api/v1/prompts/purge": b'{"filter": {"model": "llama3.2"}}',
    "/api/create": b'{"model": "begun", "from": "llama3.2"}',
    "/api/show": b'{"model": "llama3.2"}',
}
"""What is not admitted as a job: each with a body that comes slowly."""


async def test_what_an_admin_has_begun_before_its_key_is_revoked_is_not_carried_out_afterwards() -> None:
    async with service_with_keys() as service:
        made = await made_key(service, role="admin")
        came = asyncio.Event()

        async def slowly(body: bytes) -> AsyncIterator[bytes]:
            yield body[:-3]
            await came.wait()
            yield body[-3:]

        async def call(path: str, body: bytes) -> int:
            async with service.session.post(path, data=slowly(body), headers=bearer(made["key"])) as response:
                return response.status

        async with asyncio.timeout(PATIENCE_SECONDS):
            calls = [asyncio.create_task(call(path, body)) for path, body in BEGUN.items()]
            kept = await finished(service, bearer(made["key"]))
            await service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
            came.set()
            assert await asyncio.gather(*calls) == [401] * len(BEGUN)
        _, keys = await service.call("GET", "/api/keys", headers=ADMIN)
        assert [key["name"] for key in keys["keys"] if key["is_active"]] == ["demo admin"]
        assert (await ended(service, kept))[0] == "completed"
        _, models = await service.call("GET", "/api/models", headers=ADMIN)
        assert "begun" not in str(models)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_call_that_is_relayed_ends_with_its_key(begun: bool) -> None:
    async with service_with_keys() as service:
        made = await made_key(service, role="admin")
        service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/pull", after_tokens=int(begun)))
        body = json.dumps({"model": "llama3.2"})
        async with asyncio.timeout(PATIENCE_SECONDS):
            calling = asyncio.create_task(service.session.post("/api/pull", data=body, headers=bearer(made["key"])))
            await service.ollama.observations.until(lambda seen: seen.stalled == 1)
            await service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
            async with await calling as response:
                assert response.status == (200 if begun else 401)
                if begun:
                    with pytest.raises(aiohttp.ClientPayloadError):
                        await response.read()
                else:
                    assert WORDS in await response.text()
            await service.ollama.observations.until(lambda seen: seen.stalled == 0)


def test_who_takes_a_seat_with_a_key_that_has_just_ended_is_told_at_once() -> None:
    key, others = (
        Key(id=name, **NewKey(name)._asdict(), is_active=True, keeps_jobs=False, created_at=0, last_used_at=None)
        for name in ("ended", "good")
    )
    seats, told = LongLived(lambda one: one is not key), list[str]()
    with (
        seats.seated(lambda: told.append("stream"), lambda: key),
        seats.seated(lambda: told.append("never"), lambda: key, lambda: told.append("websocket")),
        seats.relayed(key, lambda: told.append("relay")),
        seats.seated(lambda: told.append("other"), lambda: others),
    ):
        assert told == ["stream", "websocket", "relay"]
    assert len(seats) == 0


async def test_jobs_go_on_where_that_is_asked_for() -> None:
    async with service_with_keys() as service:
        made, fault = await made_key(service), service.stall()
        user = bearer(made["key"])
        jobs = [await submitted(service, user) for _ in range(8)]
        status, _ = await service.call("DELETE", f"/api/keys/{made['id']}?keep_jobs=true", headers=ADMIN)
        assert status == 200
        assert (await service.call("GET", "/api/stats", headers=user))[0] == 401
        fault.release()
        for job_id in jobs:
            await service.until(job_id, "completed", headers=ADMIN)
        status, answer = await service.call("DELETE", f"/api/keys/{made['id']}?keep_jobs=perhaps", headers=ADMIN)
        assert (status, answer["field"]) == (400, "keep_jobs")


@pytest.mark.parametrize("keeps_jobs", [False, True])
async def test_the_next_start_ends_the_jobs_of_a_key_that_was_revoked_while_nothing_ran(
    tmp_path: Path, keeps_jobs: bool
) -> None:
    async with service_with_keys(folder=tmp_path) as service:
        made = await made_key(service)
        job_id = await submitted(service, bearer(made["key"]), not_before=LATER)
        config = service.config
    database = await open_database(config.database)
    await Keyring(KeyStore(database), b"", Clock()).revoke(made["id"], keeps_jobs=keeps_jobs, by=START)
    await database.close()
    async with service_with_keys(folder=tmp_path) as service:
        if keeps_jobs:
            # Whoever ends jobs at the start has had its turn when a job of another has been through.
            await finished(service, ADMIN)
            assert (await ended(service, job_id))[0] == "queued"
        else:
            await service.until(job_id, "cancelled", headers=ADMIN)
            assert await ended(service, job_id) == ("cancelled", "revoked")


async def test_a_demo_key_that_ends_by_a_start_without_it_keeps_its_jobs(tmp_path: Path) -> None:
    async with service_with_keys({"auth.demo_user_key": "a-demo-key-of-a-user"}, folder=tmp_path) as service:
        job_id = await submitted(service, bearer("a-demo-key-of-a-user"), not_before=LATER)
    async with service_with_keys(folder=tmp_path) as service:
        assert (await service.call("GET", "/api/stats", headers=bearer("a-demo-key-of-a-user")))[0] == 401
        await finished(service, ADMIN)
        assert (await ended(service, job_id))[0] == "queued"


async def test_what_comes_to_a_process_that_does_not_know_yet_is_ended_before_the_answer(postgres_place: Place) -> None:
    url = {"database.url": postgres_place.config.url}
    async with service_with_keys(url | {"database.poll_interval_seconds": 1.5}) as one:
        made = await made_key(one)
        async with service_with_keys(url | {"database.poll_interval_seconds": 60.0}) as two:
            user = bearer(made["key"])
            first = await submitted(two, user, not_before=LATER)
            async with asyncio.timeout(PATIENCE_SECONDS):
                revoking = asyncio.create_task(one.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN))
                while (await ended(one, first))[0] == "queued":
                    continue
                # The other process looks again in a minute only, and believes in the key.
                late = await submitted(two, user, not_before=LATER)
                assert not revoking.done()
                assert (await revoking)[0] == 200
            assert await ended(one, late) == ("cancelled", "revoked")


async def test_another_process_ends_what_it_has_of_the_key(postgres_place: Place) -> None:
    options = {"database.url": postgres_place.config.url, "database.poll_interval_seconds": 0.05}
    async with service_with_keys(options) as one, service_with_keys(options) as two:
        made = await made_key(one)
        user = bearer(made["key"])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await two.call("GET", "/api/stats", headers=user))[0] != 200:
                continue
        two.stall()
        running = await submitted(two, user)
        waiting = await submitted(two, user, not_before=LATER)
        assert (await one.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN))[0] == 200
        for job_id in (running, waiting):
            assert await ended(one, job_id) == ("cancelled", "revoked")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await two.call("POST", "/api/v1/prompt", {"prompt": "Hello"}, headers=user))[0] != 401:
                continue
            while (await one.call("GET", "/api/v1/prompts", params={"status": "queued"}, headers=ADMIN))[1]["total"]:
                continue
