"""The limits of keys: requests an hour, jobs at a time, models, priority; in each dialect's words and over restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.audit import START
from service.clock import Clock
from service.errors import LimitReachedError
from service.job import Line
from service.key import NewKey, owner_of_key
from service.keys.keyring import Keyring
from service.keys.rate_limits import RateLimit, RateLimits
from service.queue.key_limits import KeyLimits
from service.store.database import Database
from service.store.jobs import JobStore
from service.store.keys import KeyStore
from tests.support.access import (
    ADMIN,
    DOORS,
    HOUR_MS,
    MESSAGES,
    PROMPT,
    bearer,
    finished,
    headers_of,
    let_pass,
    made_key,
    service_with_keys,
)
from tests.support.running import PATIENCE_SECONDS, RunningService
from tests.support.store_jobs import stored

every_door = pytest.mark.parametrize(("path", "body", "place"), DOORS, ids=[path for path, _, _ in DOORS])


async def sent(
    service: RunningService, path: str, body: dict[str, Any], headers: dict[str, str]
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and answer, which is text where this Ollama does not have the route."""
    async with service.session.post(path, json=body, headers=headers) as response:
        is_text = response.content_type == "text/plain"
        answer = await response.text() if is_text else await response.json(content_type=None)
        return response.status, dict(response.headers), answer


def said(answer: Any, place: tuple[str, ...]) -> str:
    for step in place:
        answer = answer[step]
    return str(answer)


async def total(service: RunningService) -> int:
    _, answer = await service.call("GET", "/api/v1/prompts", headers=ADMIN)
    return int(answer["total"])


# Requests an hour


@every_door
async def test_beyond_its_requests_a_key_is_told_when_to_come_again_and_no_job_is_made(
    path: str, body: dict[str, Any], place: tuple[str, ...]
) -> None:
    async with service_with_keys() as service:
        user = await headers_of(service, rate_limit=1)
        assert (await sent(service, path, body, user))[0] not in (403, 429)
        before = await total(service)
        status, headers, answer = await sent(service, path, body, user)
        assert status == 429
        assert said(answer, place).startswith("this API key may make 1 requests an hour")
        assert 3590 <= int(headers["Retry-After"]) <= 3600
        assert await total(service) == before == 1


async def test_every_reply_to_a_limited_key_says_how_it_stands() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service, rate_limit=3)
        for left in (2, 1, 0, 0):
            _, headers, _ = await sent(service, "/api/v1/prompt", PROMPT, user)
            assert headers["x-ratelimit-limit-requests"] == "3"
            assert headers["x-ratelimit-remaining-requests"] == str(left)
            assert headers["x-ratelimit-reset-requests"] in ("60m0s", "59m59s", "59m58s")
        async with service.session.get("/api/v1/prompts", headers=user) as response:
            assert response.headers["x-ratelimit-remaining-requests"] == "0"
        async with service.session.get("/api/v1/prompts", headers=ADMIN) as response:
            assert "x-ratelimit-limit-requests" not in response.headers


async def test_only_requests_that_may_make_a_job_count() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service, rate_limit=1)
        for _ in range(3):
            assert (await service.call("GET", "/api/v1/prompts", headers=user))[0] == 200
            assert (await sent(service, "/api/v1/prompt", {"prompt": ""}, user))[0] == 400
        await finished(service, user)


async def test_a_request_that_finds_the_queue_full_does_not_count() -> None:
    async with service_with_keys({"queue.max_size": 1}, seats=1) as service:
        user = await headers_of(service, rate_limit=3)
        fault = service.stall()
        running = await submitted(service, user)
        await until(service, running, "processing", user)
        waiting = await submitted(service, user)
        for path, body, _ in DOORS:
            if path != "/api/embed":
                assert (await sent(service, path, body, user))[0] == 503
        fault.release()
        await until(service, waiting, "completed", user)
        await finished(service, user)
        assert (await sent(service, "/api/v1/prompt", PROMPT, user))[0] == 429


async def test_an_unload_is_for_those_who_may_use_the_model() -> None:
    async with service_with_keys() as service:
        unload = {"model": "llama3.2", "keep_alive": 0}
        refused, allowed = await headers_of(service, models=["thinker"]), await headers_of(service, rate_limit=1)
        assert (await sent(service, "/api/generate", unload, refused))[0] == 403
        for _ in range(2):
            assert (await sent(service, "/api/generate", unload, allowed))[0] == 200


async def test_an_hour_later_a_key_may_ask_again() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service, rate_limit=1)
        await finished(service, user)
        let_pass(service, HOUR_MS - 10_000)
        assert (await sent(service, "/api/v1/prompt", PROMPT, user))[0] == 429
        let_pass(service, 10_000)
        await finished(service, user)


async def test_the_limit_holds_over_a_restart(tmp_path: Path) -> None:
    async with service_with_keys(folder=tmp_path) as service:
        made = await made_key(service, rate_limit=2)
        user = bearer(made["key"])
        await finished(service, user)
    async with service_with_keys(folder=tmp_path) as service:
        await finished(service, user)
        assert (await sent(service, "/api/v1/prompt", PROMPT, user))[0] == 429
    async with service_with_keys(folder=tmp_path) as service:
        assert (await sent(service, "/api/v1/prompt", PROMPT, user))[0] == 429
        let_pass(service, HOUR_MS)
        await finished(service, user)


async def test_what_other_processes_were_asked_counts_too(database: Database) -> None:
    clock = Clock()
    keys = await Keyring.open(KeyStore(database), clock)
    key, _ = await keys.create(NewKey("shared", requests_per_hour=5), by=START)
    rate_limits = RateLimits(KeyStore(database), keys, clock)
    rate_limits.take(key)
    store = JobStore(database, "other")
    for ago in (HOUR_MS + 1000, HOUR_MS // 2, 60_000, 0):
        await stored(store, now=clock.now_ms() - ago, owner=owner_of_key(key.id), key_id=key.id)
    for _ in range(2):
        await rate_limits.recall()
    left = rate_limits.left(key)
    assert left is not None
    # What was taken here in this second may be the job that is stored there.
    assert left.remaining in (1, 2)
    clock.not_before(clock.now_ms() + HOUR_MS // 2)
    left = rate_limits.left(key)
    assert left is not None
    assert left.remaining in (2, 3)


class HandTurnedClock(Clock):
    """Stands still until it is moved forward."""

    now = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.now

    def not_before(self, stored_ms: int) -> None:
        self.now = max(self.now, stored_ms)


async def test_the_window_slides(database: Database) -> None:
    clock = HandTurnedClock()
    keys = await Keyring.open(KeyStore(database), clock)
    key, _ = await keys.create(NewKey("x", requests_per_hour=2), by=START)
    unlimited, _ = await keys.create(NewKey("y"), by=START)
    rate_limits = RateLimits(KeyStore(database), keys, clock)
    assert rate_limits.left(unlimited) is None
    rate_limits.take(unlimited)
    assert rate_limits.left(key) == RateLimit(2, 2, 0)
    rate_limits.take(key)
    clock.not_before(clock.now_ms() + HOUR_MS // 2)
    rate_limits.take(key)
    with pytest.raises(LimitReachedError) as refusal:
        rate_limits.take(key)
    assert refusal.value.retry_after_seconds == 1800
    clock.not_before(clock.now_ms() + int(refusal.value.retry_after_seconds * 1000))
    rate_limits.take(key)
    with pytest.raises(LimitReachedError):
        rate_limits.take(key)


# Jobs at a time


async def test_of_a_key_only_so_many_jobs_run_at_a_time_and_others_pass() -> None:
    async with service_with_keys() as service:
        narrow, other = await headers_of(service, concurrency=2), await headers_of(service)
        fault = service.stall()
        ids = [await submitted(service, narrow) for _ in range(4)]
        last = await submitted(service, other)
        await until(service, last, "processing", other)
        assert await statuses(service, ids) == ["processing", "processing", "queued", "queued"]
        assert (await service.call("DELETE", f"/api/v1/prompt/{ids[0]}", headers=narrow))[0] == 200
        await until(service, ids[2], "processing", narrow)
        assert await statuses(service, ids) == ["cancelled", "processing", "processing", "queued"]
        fault.release()
        for job_id in ids[1:]:
            await until(service, job_id, "completed", narrow)


async def test_a_job_that_takes_a_free_seat_is_told_that_nobody_goes_before_it() -> None:
    async with service_with_keys() as service:
        narrow, other = await headers_of(service, concurrency=1), await headers_of(service)
        fault = service.stall()
        held = [await submitted(service, narrow) for _ in range(3)]
        _, _, answer = await sent(service, "/api/v1/prompt", PROMPT, other)
        assert (answer["status"], answer["position"], answer["position_is_exact"]) == ("queued", 1, True)
        await until(service, answer["id"], "processing", other)
        assert await statuses(service, held) == ["processing", "queued", "queued"]
        fault.release()


async def test_people_behind_one_key_share_its_seats() -> None:
    async with service_with_keys() as service:
        shared = await headers_of(service, concurrency=1, owner_header="X-User")
        fault = service.stall()
        first = await submitted(service, shared | {"X-User": "anna"})
        second = await submitted(service, shared | {"X-User": "ben"})
        last = await submitted(service, ADMIN)
        await until(service, last, "processing", ADMIN)
        assert await statuses(service, [first, second]) == ["processing", "queued"]
        fault.release()
        await until(service, second, "completed", ADMIN)


async def test_a_waiting_caller_waits_for_its_keys_seat_and_holds_up_nobody() -> None:
    async with service_with_keys() as service:
        narrow, other = await headers_of(service, concurrency=1), await headers_of(service)
        fault = service.stall(times=1)
        first = await submitted(service, narrow)
        await until(service, first, "processing", narrow)
        waiting = asyncio.create_task(sent(service, "/api/chat", MESSAGES, narrow))
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await sent(service, "/api/chat", MESSAGES, other))[0] == 200
            assert not waiting.done()
            fault.release()
            assert (await waiting)[0] == 200


async def submitted(service: RunningService, headers: dict[str, str]) -> str:
    status, _, answer = await sent(service, "/api/v1/prompt", PROMPT, headers)
    assert status == 202, answer
    return str(answer["id"])


async def until(service: RunningService, job_id: str, wanted: str, headers: dict[str, str]) -> None:
    known = ""
    while known != wanted:
        query = {"wait": str(PATIENCE_SECONDS), "status": known} if known else {}
        _, answer = await service.call("GET", f"/api/v1/prompt/{job_id}/status", params=query, headers=headers)
        before, known = known, answer["status"]
        assert known != before, f"the job stays {known}"


async def statuses(service: RunningService, ids: list[str]) -> list[str]:
    return [(await service.jobs.views.view(job_id)).job.status for job_id in ids]


def test_a_key_is_full_at_its_limit_and_only_then() -> None:
    seats = KeyLimits({"narrow": 2, "wide": None}.get)
    anna, ben = owner_of_key("narrow", "anna"), owner_of_key("narrow", "ben")
    seats.take(anna)
    assert seats.may_run(ben)
    seats.take(ben)
    assert not seats.may_run(anna)
    assert not seats.any_may_run([anna, ben])
    assert seats.any_may_run([anna, "192.0.2.1"])
    assert seats.held_lines("r", {anna: {0: 1, 1: 2}, "192.0.2.1": {0: 1}}) == {Line("r", anna, 0), Line("r", anna, 1)}
    assert seats.free(anna)
    assert not seats.free(ben)
    assert seats.may_run(anna)
    for owner in (owner_of_key("wide"), "192.0.2.1", ""):
        for _ in range(100):
            seats.take(owner)
        assert seats.may_run(owner)
        assert not seats.free(owner)


# Models and priorities


@every_door
async def test_a_model_that_a_key_may_not_use_is_refused(
    path: str, body: dict[str, Any], place: tuple[str, ...]
) -> None:
    async with service_with_keys() as service:
        allowed = await headers_of(service, models=["LLAMA3.2:latest", "mistral"])
        refused = await headers_of(service, models=["thinker", "mistral"])
        assert (await sent(service, path, body, allowed))[0] not in (403, 429)
        before = await total(service)
        status, _, answer = await sent(service, path, body, refused)
        assert status == 403
        assert said(answer, place) == "this API key may not use the model 'llama3.2'; it may use thinker, mistral"
        assert await total(service) == before == 1


async def test_a_refused_request_takes_nothing_off_the_allowance() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service, rate_limit=1, models=["llama3.2"])
        assert (await sent(service, "/api/v1/prompt", {**PROMPT, "model": "thinker"}, user))[0] == 403
        await finished(service, user)


@pytest.mark.parametrize(
    ("highest", "asked", "given"),
    [
        (None, "high", "high"),
        ("high", "high", "high"),
        ("normal", "high", None),
        ("normal", "normal", "normal"),
        ("normal", None, "normal"),
        ("normal", "low", "low"),
        ("low", "high", None),
        ("low", "normal", "low"),
        ("low", None, "low"),
        ("low", "low", "low"),
    ],
)
async def test_a_higher_priority_is_refused_and_the_usual_one_lowered(
    highest: str | None, asked: str | None, given: str | None
) -> None:
    async with service_with_keys() as service:
        user = await headers_of(service, max_priority=highest)
        status, _, answer = await sent(service, "/api/v1/prompt", {**PROMPT, "priority": asked}, user)
        if given is None:
            assert (status, await total(service)) == (403, 0)
            assert answer["error"] == f"this API key may not ask for priority high; at most {highest}"
        else:
            assert status == 202
            _, job = await service.call("GET", f"/api/v1/prompt/{answer['id']}/status", headers=user)
            assert job["priority"] == given
        headers = user | ({"X-Priority": asked} if asked else {})
        assert (await sent(service, "/api/chat", MESSAGES, headers))[0] == (403 if given is None else 200)
