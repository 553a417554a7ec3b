"""Processes that share one PostgreSQL share keys, limits and the log: each learns of the others at its next look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.access import ADMIN, bearer, finished, let_pass, made_key, owner_of, service_with_keys, token_of
from tests.support.databases import Place
from tests.support.running import PATIENCE_SECONDS, RunningService

Both = tuple[RunningService, RunningService]


@pytest.fixture
async def both(postgres_place: Place) -> AsyncIterator[Both]:
    """Two services that share a database and look at it often."""
    options = {"database.url": postgres_place.config.url, "database.poll_interval_seconds": 0.05}
    async with service_with_keys(options) as one, service_with_keys(options) as two:
        yield one, two


async def until_answered(service: RunningService, expected: int, headers: dict[str, str]) -> None:
    """Ask until the service answers so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await service.call("GET", "/api/stats", headers=headers))[0] != expected:
            continue


async def test_a_key_is_good_and_then_revoked_everywhere(both: Both) -> None:
    one, two = both
    made = await made_key(one)
    user = bearer(made["key"])
    await until_answered(two, 200, user)
    token = bearer(await token_of(one, user))
    await until_answered(two, 200, token)
    await two.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
    await until_answered(one, 401, user)
    await until_answered(one, 401, token)


async def test_a_limit_counts_what_every_process_was_asked(both: Both) -> None:
    one, two = both
    user = bearer((await made_key(one, rate_limit=3))["key"])
    await until_answered(two, 200, user)
    for _ in range(2):
        await finished(one, user)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with two.session.get("/api/v1/prompts", headers=user) as response:
                if response.headers["x-ratelimit-remaining-requests"] == "1":
                    break
    await finished(two, user)
    assert (await two.call("POST", "/api/v1/prompt", {"prompt": "x"}, headers=user))[0] == 429
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            async with one.session.get("/api/v1/prompts", headers=user) as response:
                if response.headers["x-ratelimit-remaining-requests"] == "0":
                    break
    assert (await one.call("POST", "/api/v1/prompt", {"prompt": "x"}, headers=user))[0] == 429


async def test_statistics_and_their_periods_are_the_same_everywhere(both: Both) -> None:
    one, two = both
    made = await made_key(one, owner_header="X-User")
    user = bearer(made["key"])
    await until_answered(two, 200, user)
    for service, name in ((one, "anna"), (two, "ben"), (two, "anna")):
        assert await owner_of(service, user | {"X-User": name}) == f"key:{made['id']}/{name}"
    await one.call("GET", "/api/stats", headers=ADMIN)
    _, stats = await two.call("GET", "/api/stats", headers=ADMIN)
    assert stats["totals"]["requests"] == 3
    assert stats["totals"]["completion_tokens"] > 0
    assert set(stats["totals"]["response_seconds"]) == {"p50", "p95", "p99"}
    assert {entry["owner"].rpartition("/")[2]: entry["requests"] for entry in stats["by_owner"]} == {
        "anna": 2,
        "ben": 1,
    }
    let_pass(one, 60_000)
    await one.call("POST", "/api/stats/reset", headers=ADMIN)
    _, stats = await two.call("GET", "/api/stats", headers=ADMIN)
    assert stats["totals"]["requests"] == 0
