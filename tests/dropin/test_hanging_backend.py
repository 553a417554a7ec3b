"""A backend that accepts and is silent holds up nothing that another can answer, and a slow one may still win."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.backend import catalogue
from tests.support.backends import until_answering
from tests.support.running import RunningService, service_in_process
from tests.support.scripted_backend import CALLER, ScriptedBackend, scripted_backends

LIMITS = {"health.probe_timeout_seconds": 0.2, "health.probe_interval_seconds": 3600}
"""What is silent is known to be so soon, and nobody else finds out in the meantime."""


@pytest.fixture(autouse=True)
def _lists_are_asked_for_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they were told within the last second."""
    monkeypatch.setattr(catalogue, "_FRESH_MS", -1)


@asynccontextmanager
async def two(
    first: list[str], second: list[str], options: dict[str, Any] | None = None
) -> AsyncIterator[tuple[RunningService, ScriptedBackend, ScriptedBackend]]:
    """A service with two backends, which are known to answer."""
    async with scripted_backends(one=first, two=second) as (one, other):
        backends = [{"name": box.name, "url": box.url} for box in (one, other)]
        async with service_in_process({**LIMITS, "backends": backends, **(options or {})}) as service:
            await until_answering(service, 2)
            yield service, one, other


async def ask(service: RunningService, path: str, body: Any = None) -> tuple[int, Any]:
    return await service.call("GET" if body is None else "POST", path, body, headers=CALLER)


async def test_the_next_that_has_the_model_is_asked_what_it_is() -> None:
    async with two(["shared"], ["shared"]) as (service, one, other):
        one.silent.add("/api/show")
        status, shown = await ask(service, "/api/show", {"model": "shared"})
        assert (status, shown["by"]) == (200, "two")
        assert one.order == [("one", "/api/show"), ("two", "/api/show")]
        assert other.counts["/api/show"] >= 1


async def test_the_next_is_not_asked_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_MOST_PATIENCE_SECONDS", 3600.0)
    async with two(["shared"], ["shared"], {"health.probe_timeout_seconds": 3600}) as (service, one, _):
        one.silent.add("/api/show")
        asking = asyncio.create_task(ask(service, "/api/show", {"model": "shared"}))
        await one.asked.wait()
        one.may_answer.set()
        assert (await asking)[1]["by"] == "one"
        assert one.order == [("one", "/api/show")]


async def test_one_that_has_the_model_is_asked_before_one_that_has_not() -> None:
    async with two(["other"], ["shared"]) as (service, one, _):
        assert (await ask(service, "/api/show", {"model": "shared"}))[1]["by"] == "two"
        assert one.order == [("two", "/api/show")]


async def test_a_slow_one_wins_when_the_others_refuse() -> None:
    async with two(["shared"], ["shared"]) as (service, one, other):
        one.silent.add("/api/show")
        other.refused.add("/api/show")
        asking = asyncio.create_task(ask(service, "/api/show", {"model": "shared"}))
        await other.asked.wait()
        one.may_answer.set()
        status, shown = await asking
        assert (status, shown["by"]) == (200, "one")


async def test_when_all_refuse_the_refusal_of_the_first_is_passed_on() -> None:
    async with two(["shared"], ["shared"]) as (service, one, other):
        for box in (one, other):
            box.refused.add("/api/show")
        status, answer = await ask(service, "/api/show", {"model": "shared"})
        assert (status, answer) == (404, {"error": "one has nothing of that"})
        assert one.order == [("one", "/api/show"), ("two", "/api/show")]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/show", {"model": "nowhere"}),
        ("/v1/models/nowhere", None),
        ("/api/chat", {"model": None, "messages": []}),
        ("/v1/chat/completions", {"model": 5}),
    ],
)
async def test_what_any_can_refuse_is_refused_by_the_next(path: str, body: Any) -> None:
    async with two(["shared"], ["shared"]) as (service, one, other):
        one.silent.add(path)
        other.refused.add(path)
        assert (await ask(service, path, body))[0] == 404
        assert one.order == [("one", path), ("two", path)]


async def test_an_unload_reaches_all_that_have_the_model_and_is_answered_by_one_that_answers() -> None:
    async with two(["shared"], ["shared"]) as (service, one, _):
        one.silent.add("/api/generate")
        status, answer = await ask(service, "/api/generate", {"model": "shared", "keep_alive": 0})
        assert (status, answer["by"]) == (200, "two")
        assert sorted(one.order) == [("one", "/api/generate"), ("two", "/api/generate")]


async def test_an_unload_that_all_have_heard_of_is_answered_by_the_first() -> None:
    async with two(["shared"], ["shared"]) as (service, _, other):
        other.silent.add("/api/generate")
        asking = asyncio.create_task(ask(service, "/api/generate", {"model": "shared", "keep_alive": 0}))
        await other.asked.wait()
        other.may_answer.set()
        assert (await asking)[1]["by"] == "one"


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models", "/api/models", "/api/ps"])
async def test_lists_hold_what_the_silent_one_told_last(path: str) -> None:
    async with two(["first"], ["second"]) as (service, one, other):
        for endpoint in ("/api/tags", "/api/ps", "/api/version"):
            one.silent.add(endpoint)
        other.models.append("newest")
        status, answer = await ask(service, path)
        assert status == 200
        entries = answer.get("models", answer.get("data"))
        assert {entry.get("name") or entry["id"] for entry in entries} == {"first", "second", "newest"}


async def test_a_model_that_was_just_pulled_is_found_while_another_backend_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As soon as one has it, nobody else is waited for: with this patience the test would not end.
    monkeypatch.setattr(catalogue, "_MOST_PATIENCE_SECONDS", 3600.0)
    async with two(["first"], ["second"], {"health.probe_timeout_seconds": 3600}) as (service, one, other):
        for endpoint in ("/api/tags", "/api/ps", "/api/version"):
            one.silent.add(endpoint)
        other.models.append("newest")
        status, shown = await ask(service, "/api/show", {"model": "newest"})
        assert (status, shown["by"]) == (200, "two")
        other.models.append("newer")
        assert (await ask(service, "/api/v1/prompt", {"prompt": "Why?", "model": "newer"}))[0] == 202


async def test_a_model_that_is_nowhere_is_refused_without_waiting_for_the_silent_one() -> None:
    async with two(["first"], ["second"]) as (service, one, _):
        for endpoint in ("/api/tags", "/api/ps", "/api/version"):
            one.silent.add(endpoint)
        status, answer = await ask(service, "/api/v1/prompt", {"prompt": "Why?", "model": "nowhere"})
        assert status == 404
        assert "nowhere" in answer["error"]
