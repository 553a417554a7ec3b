"""A purged job is gone at once: for everybody, everywhere, and from the files."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.api.context import CLOCK
from service.config import DatabaseConfig
from service.simulated import Fault, FaultKind
from service.store.contents import AT_ONCE
from service.store.jobs import PRUNED_AT_ONCE, JobStore
from tests.support.access import ADMIN, bearer, headers_of, made_key, service_with_keys
from tests.support.databases import Place
from tests.support.files import texts_in
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process
from tests.support.store_jobs import duplicated, finished

PURGE = "/api/v1/prompts/purge"
PROXIES = {"server.trusted_proxies": ["127.0.0.1"]}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No purge waits for a second since the one before."""
    monkeypatch.setattr("service.store.sqlite.erasing._PAUSE_SECONDS", 0.0)


def address(last: int) -> dict[str, str]:
    return {"X-Forwarded-For": f"198.51.100.{last}"}


async def purged(service: RunningService, job_id: str, headers: dict[str, str] | None = None) -> None:
    status, answer = await service.call("DELETE", f"/api/v1/prompt/{job_id}?purge=true", headers=headers)
    assert (status, answer) == (200, {"purged": 1, "erased": True})


async def submitted(service: RunningService, prompt: str, headers: dict[str, str], **fields: Any) -> str:
    status, answer = await service.call("POST", "/api/v1/prompt", {"prompt": prompt, **fields}, headers=headers)
    assert status == 202, answer
    return str(answer["id"])


async def total(service: RunningService, headers: dict[str, str] | None = None) -> int:
    _, page = await service.call("GET", "/api/v1/prompts", headers=headers)
    return int(page["total"])


def marked(number: int) -> str:
    return f"PLANTED{number:03d}X"


async def test_what_was_asked_and_answered_through_any_door_is_in_no_file_any_more(tmp_path: Path) -> None:
    async with service_in_process(folder=tmp_path) as service:
        service.ollama.arm(Fault(kind=FaultKind.ERROR, status=400, message=marked(900), endpoint="/api/embed"))
        long = marked(0) + " many words" * 20_000
        last = [{"role": "user", "content": marked(9)}]
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("/api/v1/prompt", {"prompt": long}),
            ("/api/v1/prompt", {"messages": [{"role": "user", "content": marked(1)}], "system": marked(2)}),
            ("/generate", {"prompt": marked(3), "system": marked(4)}),
            ("/api/generate", {"model": "llama3.2", "prompt": marked(5)}),
            ("/api/chat", {"model": "llama3.2", "messages": [{"role": "user", "content": marked(6)}]}),
            ("/api/embed", {"model": "llama3.2", "input": [marked(7)]}),
            ("/v1/chat/completions", {"model": "llama3.2", "messages": [{"role": "user", "content": marked(8)}]}),
            ("/v1/messages", {"model": "llama3.2", "max_tokens": 9, "messages": last}),
        ]  # fmt: skip
        for number, (path, body) in enumerate(bodies):
            headers = {"Idempotency-Key": f"repeat-{number}"}
            async with service.session.post(path, data=json.dumps(body), headers=headers) as response:
                await response.read()
        _, page = await service.call("GET", "/api/v1/prompts", params={"page_size": "100"})
        ids = [job["id"] for job in page["prompts"]]
        assert len(ids) == len(bodies)
        for job_id in ids:
            for known in ("queued", "processing"):
                await service.call("GET", f"/api/v1/prompt/{job_id}/status", params={"wait": "60", "status": known})
        _, result = await service.call("GET", f"/api/v1/prompt/{ids[-1]}/result")
        answer = result["result"][:60]
        kept = [row[0] for row in await _rows(service, "SELECT reply_body FROM idempotency WHERE reply_body > ''")]
        packed = [body[:200] for body in kept] + [base64.b64encode(marked(0).encode()).decode()[:8]]
        texts = [*(marked(number) for number in range(10)), marked(900), answer, *packed[:-1]]
        assert set(texts_in(tmp_path, texts)) == set(texts)
        replies = await asyncio.gather(
            *(service.call("DELETE", f"/api/v1/prompt/{job_id}?purge=true") for job_id in ids)
        )
        assert replies == [(200, {"purged": 1, "erased": True})] * len(ids)
        assert texts_in(tmp_path, texts) == {}
        for table in ("jobs", "bodies", "results", "idempotency", "reply_pieces"):
            assert await _rows(service, f"SELECT count(*) FROM {table}") == [(0,)]
        assert await total(service) == 0


async def _rows(service: RunningService, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(service.config.database.path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def test_a_purged_job_is_nowhere(tmp_path: Path) -> None:
    async with service_in_process(folder=tmp_path) as service:
        job_id = await service.finished("Where am I?")
        seq = (await service.jobs.views.view(job_id)).job.seq
        counted = service.jobs.backlog.gauges.total("completed", None, None)
        async with service.session.ws_connect("/api/v1/ws") as socket:
            await socket.send_json({"type": "subscribe", "channel": "jobs"})
            assert (await socket.receive_json())["total"] == 1
            await purged(service, job_id)
            told = await socket.receive_json()
            assert (told["id"], told["prompt"]) == (job_id, "")
            await socket.send_json({"type": "subscribe", "channel": "job", "id": job_id})
            assert "there is no prompt" in (await socket.receive_json())["error"]
        for place in ("status", "result", "request", "stream"):
            assert (await service.call("GET", f"/api/v1/prompt/{job_id}/{place}"))[0] == 404
        assert (await service.call("GET", f"/status/{seq}"))[0] == 404
        for query in ("", "?purge=true"):
            assert (await service.call("DELETE", f"/api/v1/prompt/{job_id}{query}"))[0] == 404
        assert await total(service) == 0
        assert (counted, service.jobs.backlog.gauges.total("completed", None, None)) == (1, 0)


@pytest.mark.parametrize("is_repeatable", [False, True])
async def test_who_waits_for_a_job_that_is_purged_is_told_that_it_was_cancelled(is_repeatable: bool) -> None:
    async with service_in_process() as service:
        service.stall(after_tokens=0, times=1)
        headers = {"Idempotency-Key": "1"} if is_repeatable else {}
        asked = {"model": "llama3.2", "prompt": "Hello", "stream": False}
        call = asyncio.create_task(service.call("POST", "/api/generate", asked, headers=headers))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (page := (await service.call("GET", "/api/v1/prompts"))[1])["prompts"]:
                continue
        job_id = page["prompts"][0]["id"]
        poll = asyncio.create_task(service.call("GET", f"/api/v1/prompt/{job_id}/result?wait=60"))
        async with service.session.get(f"/api/v1/prompt/{job_id}/stream") as stream:
            await stream.content.readline()
            await purged(service, job_id)
            assert b"event: done" in await stream.content.read()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await call)[0] == 499
            status, answer = await poll
        assert status == 404 or answer["status"] == "cancelled"
        assert job_id not in service.jobs.ledger.running
        assert await total(service) == 0
        # The key is free for another try.
        assert (await service.call("POST", "/api/generate", asked, headers=headers))[0] == 200


async def test_without_keys_only_jobs_of_the_own_address_are_purged() -> None:
    async with service_in_process(PROXIES) as service:
        mine = [await submitted(service, "mine", address(1)) for _ in range(3)]
        theirs = await submitted(service, "theirs", address(2))
        for job_id in (*mine, theirs):
            await service.until(job_id, "completed", headers=address(1))
        status, answer = await service.call("DELETE", f"/api/v1/prompt/{theirs}?purge=true", headers=address(1))
        assert (status, "whoever has made it" in answer["error"]) == (403, True)
        await purged(service, mine[0], address(1))
        for body in (
            {"filter": {"status": ["completed"]}, "everybody": True},
            {"filter": {"owner": "198.51.100.2"}},
            {"filter": {"key": "somebody"}},
        ):
            assert (await service.call("POST", PURGE, body, headers=address(1)))[0] == 403
        everything = {"filter": {"from": "2020-01-01T00:00:00Z"}}
        assert (await service.call("POST", PURGE, everything, headers=address(3)))[1]["purged"] == 0
        assert (await service.call("POST", PURGE, everything, headers=address(1)))[1] == {"purged": 2, "erased": True}
        assert await total(service) == 1


async def test_an_open_instance_gives_a_key_no_more_than_its_own_jobs() -> None:
    async with service_with_keys(PROXIES, required=False) as service:
        user = await headers_of(service)
        theirs, anonymous = await submitted(service, "a", ADMIN), await submitted(service, "b", address(1))
        for job_id in (theirs, anonymous):
            await service.until(job_id, "completed")
            assert (await service.call("DELETE", f"/api/v1/prompt/{job_id}?purge=true", headers=user))[0] == 403
        assert (await service.call("DELETE", f"/api/v1/prompt/{theirs}?purge=true"))[0] == 403
        own = await submitted(service, "c", user)
        # Whoever has the address of a job with a key has not the key.
        assert (await service.call("DELETE", f"/api/v1/prompt/{own}?purge=true"))[0] == 403
        await purged(service, own, user)
        await purged(service, anonymous, ADMIN)


async def test_a_person_purges_its_own_a_front_end_its_persons_and_an_admin_all() -> None:
    async with service_with_keys() as service:
        made = await made_key(service, owner_header="X-User")
        front, other = bearer(made["key"]), await headers_of(service)
        one, two = front | {"X-User": "one"}, front | {"X-User": "two"}
        ids = {name: await submitted(service, name, headers) for name, headers in
               {"one": one, "two": two, "nobody": front, "other": other}.items()}  # fmt: skip
        for job_id in ids.values():
            await service.until(job_id, "completed", headers=ADMIN)
        finished: dict[str, Any] = {"filter": {"status": ["completed"]}}
        assert (await service.call("DELETE", f"/api/v1/prompt/{ids['one']}?purge=true", headers=two))[0] == 404
        assert (await service.call("DELETE", f"/api/v1/prompt/{ids['one']}?purge=true", headers=other))[0] == 404
        assert (await service.call("POST", PURGE, finished, headers=two))[1]["purged"] == 1
        assert (await service.call("POST", PURGE, finished, headers=front))[1]["purged"] == 1
        assert (await service.call("POST", PURGE, finished | {"everybody": True}, headers=front))[1]["purged"] == 1
        assert (await service.call("POST", PURGE, {"filter": {"key": made["id"]}}, headers=other))[0] == 403
        assert (await service.call("POST", PURGE, finished, headers=ADMIN))[1]["purged"] == 0
        assert (await service.call("POST", PURGE, finished | {"everybody": True}, headers=ADMIN))[1]["purged"] == 1
        assert (await service.call("POST", PURGE, finished))[0] == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "filter"),
        ({"filter": {}}, "filter"),
        ({"filter": {"model": None, "q": None}, "everybody": True}, "filter"),
        ({"filter": {"status": []}}, "filter.status"),
        ({"filter": {"status": ["done"]}}, "filter.status[0]"),
        ({"filters": {"q": "x"}}, "filters"),
    ],
)
async def test_a_purge_must_say_which_jobs(body: dict[str, Any], field: str) -> None:
    async with service_in_process() as service:
        await service.finished()
        status, answer = await service.call("POST", PURGE, body)
        assert (status, answer["field"]) == (400, field)
        assert await total(service) == 1


async def test_a_filter_purges_jobs_in_every_status_and_cancels_those_that_have_not_ended() -> None:
    async with service_in_process(seats=1) as service:
        done = await asyncio.gather(*(service.finished("a red fox") for _ in range(55)))
        stall = service.stall()
        running = await service.submit("a red hen")
        await service.until(running, "processing")
        waiting = [await service.submit(words) for words in ("red", "blue", "red")]
        status, answer = await service.call("POST", PURGE, {"filter": {"q": "RED"}})
        assert (status, answer) == (200, {"purged": len(done) + 3, "erased": True})
        stall.release()
        assert (await service.until(waiting[1], "completed"))["prompt"] == "blue"
        assert await total(service) == 1
        assert service.jobs.backlog.gauges.total("queued", None, None) == 0
        assert service.jobs.ledger.running == {}


async def test_a_limit_counts_the_requests_of_purged_jobs(tmp_path: Path) -> None:
    async with service_with_keys(folder=tmp_path) as service:
        user = await headers_of(service, rate_limit=2)
        for _ in range(2):
            job_id = await submitted(service, "Hello", user)
            await purged(service, job_id, user)
    # A restart counts anew.
    async with service_with_keys(folder=tmp_path) as service:
        assert (await service.call("POST", "/api/v1/prompt", {"prompt": "Hello"}, headers=user))[0] == 429


async def test_while_another_program_reads_the_file_the_answer_says_that_it_is_not_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.sqlite.erasing._TRIES", 2)
    async with service_in_process(folder=tmp_path) as service:
        job_id = await service.finished(marked(1))
        reader = sqlite3.connect(service.config.database.path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM jobs").fetchall()
        status, answer = await service.call("DELETE", f"/api/v1/prompt/{job_id}?purge=true")
        assert (status, answer) == (200, {"purged": 1, "erased": False})
        assert (await service.call("GET", f"/api/v1/prompt/{job_id}/status"))[0] == 404
        reader.close()
        # It goes on by itself; who asks next waits for the same.
        await purged(service, await service.finished(marked(2)))
        assert texts_in(tmp_path, [marked(1), marked(2)]) == {}


async def test_purges_that_wait_share_one_emptying_of_the_log(
    tmp_path: Path, counted: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.sqlite.erasing._PAUSE_SECONDS", 1.0)
    async with service_in_process(folder=tmp_path) as service:
        ids = [await service.finished() for _ in range(12)]
        truncations = counted("service.store.sqlite.erasing._truncated")
        await asyncio.gather(*(purged(service, job_id) for job_id in ids))
        assert len(truncations) <= 2


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Has the calls of a function counted."""

    def count(name: str) -> list[str]:
        module, _, function = name.rpartition(".")
        real, calls = getattr(__import__(module, fromlist=[function]), function), list[str]()

        def call(*arguments: Any) -> Any:
            calls.append(function)
            return real(*arguments)

        monkeypatch.setattr(name, call)
        return calls

    return count


async def test_what_a_purge_has_removed_before_it_broke_off_is_erased_too(tmp_path: Path) -> None:
    async with service_in_process(folder=tmp_path) as service:
        ids = [await service.finished(marked(number)) for number in range(AT_ONCE + 2)]
        last = (await service.jobs.views.view(ids[-1])).job.seq
        connection = sqlite3.connect(service.config.database.path)
        refuse = "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        connection.execute(f"CREATE TRIGGER refuse BEFORE DELETE ON jobs WHEN OLD.seq = {last} {refuse}")
        connection.close()
        status, _ = await service.call("POST", PURGE, {"filter": {"status": ["completed"]}})
        assert (status >= 500, await total(service)) == (True, 2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while texts_in(tmp_path, map(marked, range(AT_ONCE))):
                assert await total(service) == 2
        assert set(texts_in(tmp_path, [marked(AT_ONCE)])) == {marked(AT_ONCE)}


async def test_what_is_pruned_for_its_age_is_erased_when_as_much_goes_as_goes_at_once(tmp_path: Path) -> None:
    place = Place(DatabaseConfig(path=tmp_path / "queue.db"))
    async with place.opened() as database:
        job = await finished(JobStore(database, "one"), prompt=marked(1))
        await duplicated(database, job.seq, PRUNED_AT_ONCE - 1)
    async with service_in_process({"database.retention_days": 36_500}, folder=tmp_path) as service:
        before = service.app[CLOCK].now_ms()
        assert set(texts_in(tmp_path, [marked(1)])) == {marked(1)}
        assert await service.jobs.upkeep.prune(before) == PRUNED_AT_ONCE
        assert await service.jobs.upkeep.prune(before) == 0
        assert texts_in(tmp_path, [marked(1)]) == {}
