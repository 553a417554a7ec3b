"""Many jobs are cancelled at once: whose, which, and what goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from service.jobs.searching import SearchTurns
from service.simulated import Fault, FaultKind
from service.store.job_filters import Filter
from tests.support.access import bearer, headers_of, made_key, service_with_keys
from tests.support.running import RunningService, service_in_process
from tests.support.store_jobs import LINE

CANCEL = "/api/v1/prompts/cancel"
PROXIES = {"server.trusted_proxies": ["127.0.0.1"]}


async def cancelled(service: RunningService, body: dict[str, Any], headers: dict[str, str] | None = None) -> int:
    status, answer = await service.call("POST", CANCEL, body, headers=headers)
    assert (status, list(answer)) == (200, ["cancelled"]), answer
    return int(answer["cancelled"])


async def submitted(service: RunningService, headers: dict[str, str], **fields: Any) -> str:
    status, answer = await service.call("POST", "/api/v1/prompt", {"prompt": "hello", **fields}, headers=headers)
    assert status == 202, answer
    return str(answer["id"])


async def statuses(service: RunningService, headers: dict[str, str] | None = None) -> Counter[str]:
    _, page = await service.call("GET", "/api/v1/prompts", params={"page_size": "100"}, headers=headers)
    return Counter(job["status"] for job in page["prompts"])


def address(last: int) -> dict[str, str]:
    return {"X-Forwarded-For": f"198.51.100.{last}"}


async def test_without_keys_a_callers_own_jobs_are_those_of_its_address() -> None:
    async with service_in_process(PROXIES, seats=1) as service:
        service.stall()
        running = await submitted(service, address(1))
        await service.until(running, "processing")
        mine = [await submitted(service, address(1)) for _ in range(3)]
        others = [await submitted(service, address(2)) for _ in range(2)]
        assert await cancelled(service, {}, address(3)) == 0
        assert await cancelled(service, {"filter": {"status": ["queued"]}}, address(1)) == 3
        assert await cancelled(service, {"filter": {}, "everybody": False}, address(1)) == 1
        assert await cancelled(service, {}, address(1)) == 0
        for job_id in (running, *mine):
            assert (await service.call("GET", f"/api/v1/prompt/{job_id}/status"))[1]["error"]["code"] == "cancelled"
        assert await cancelled(service, {"everybody": True}, address(1)) == len(others)


async def test_a_dry_run_says_how_many_would_be_cancelled_and_cancels_none() -> None:
    async with service_in_process(PROXIES, seats=1) as service:
        service.stall()
        running = await submitted(service, address(1))
        await service.until(running, "processing")
        for last in (1, 1, 2):
            await submitted(service, address(last))
        for body, number in (
            ({}, 3),
            ({"filter": {"status": ["queued"]}}, 2),
            ({"filter": {"model": "nobody's"}}, 0),
            ({"everybody": True}, 4),
        ):
            status, answer = await service.call("POST", CANCEL, {**body, "dry_run": True}, headers=address(1))
            assert (status, answer) == (200, {"cancelled": 0, "matching": number})
        assert await statuses(service) == {"queued": 3, "processing": 1}


async def test_with_keys_they_are_those_of_its_key_and_everybody_is_whom_it_may_see() -> None:
    async with service_with_keys(seats=1) as service:
        service.stall()
        one, other = await headers_of(service), await headers_of(service)
        admin = await headers_of(service, role="admin")
        for headers, number in ((one, 3), (other, 2), (admin, 1)):
            for _ in range(number):
                await submitted(service, headers)
        assert (await service.call("POST", CANCEL, {}))[0] == 401
        assert await cancelled(service, {"everybody": True}, one) == 3
        assert await cancelled(service, {}, admin) == 1
        assert await statuses(service, other) - Counter(cancelled=99) == Counter(await statuses(service, other))
        assert await cancelled(service, {"everybody": True}, admin) == 2


@pytest.mark.parametrize("order", [None, ["processing", "queued"]])
async def test_a_job_that_goes_back_to_the_queue_meanwhile_is_cancelled_too(
    order: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"retry.initial_seconds": 3600, "retry.cap_seconds": 3600}
    async with service_in_process(options, seats=1) as service:
        stall = service.stall(after_tokens=1)
        service.ollama.arm(Fault(kind=FaultKind.HANG_UP, endpoint="/api/generate", after_tokens=2, times=1))
        running = await service.submit()
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        await service.until(running, "processing")
        waiting = [await service.submit() for _ in range(3)]
        queries, looked_up = service.jobs.cancelling._queries, list[str]()
        ids = queries.ids

        async def late(which: Filter, *others: int) -> list[tuple[int, str]]:
            looked_up.extend(which.statuses)
            if looked_up == ["queued", "processing"]:
                # Its attempt fails between the two lookups, while no seat is free for another job.
                stall.release()
                await service.look(running, lambda job: job["status"] == "queued")
            return await ids(which, *others)

        monkeypatch.setattr(queries, "ids", late)
        wanted = {} if order is None else {"filter": {"status": order}}
        assert await cancelled(service, wanted) == 1 + len(waiting)
        assert await statuses(service) == Counter(cancelled=4)
        assert looked_up[-2:] == (order or ["queued", "processing"])


async def test_a_model_is_chosen_as_ollama_spells_it() -> None:
    async with service_in_process(seats=1) as service:
        service.stall()
        await service.until(await service.submit(), "processing")
        await service.submit(model="thinker")
        await service.submit()
        assert await cancelled(service, {"filter": {"model": "THINKER:latest"}}) == 1
        assert await cancelled(service, {"filter": {"model": "nosuch"}}) == 0
        # The next one begins in its place, and was not asked for.
        assert await cancelled(service, {"filter": {"status": ["processing"]}}) == 1
        assert await cancelled(service, {}) == 1


async def test_text_and_time_choose_among_the_callers_own() -> None:
    async with service_in_process(PROXIES, seats=1) as service:
        service.stall()
        await service.until(await service.submit(), "processing")
        ids = [await submitted(service, address(1), prompt=words) for words in ("red fox", "red hen", "grey fox")]
        await submitted(service, address(2), prompt="red fox")
        _, second = await service.call("GET", f"/api/v1/prompt/{ids[1]}/status")
        made = second["created_at"]
        assert await cancelled(service, {"filter": {"q": "FOX", "to": "2020-01-01T00:00:00Z"}}, address(1)) == 0
        assert await cancelled(service, {"filter": {"q": "fox", "from": made}}, address(1)) >= 1
        assert await cancelled(service, {"filter": {"q": "nowhere"}}, address(1)) == 0
        left = {"filter": {"q": "red"}}
        assert await cancelled(service, left, address(1)) >= 1
        assert await cancelled(service, left, address(1)) == 0
        assert await cancelled(service, {**left, "everybody": True}, address(1)) == 1


async def test_the_jobs_of_an_owner_or_key_are_for_admins_or_where_no_keys_are_required() -> None:
    async with service_in_process(PROXIES, seats=1) as service:
        service.stall()
        await service.until(await service.submit(), "processing")
        for number in (1, 1, 2):
            await submitted(service, address(number))
        assert await cancelled(service, {"filter": {"owner": "198.51.100.1"}}, address(3)) == 2
        assert await cancelled(service, {"filter": {"owner": "::1"}}, address(3)) == 1
    async with service_with_keys(seats=1) as service:
        service.stall()
        one, other = await made_key(service), await made_key(service)
        admin = await headers_of(service, role="admin")
        for key, number in ((one, 2), (other, 3)):
            for _ in range(number):
                await submitted(service, bearer(key["key"]))
        for named in ({"key": other["id"]}, {"owner": f"key:{other['id']}"}):
            status, answer = await service.call("POST", CANCEL, {"filter": named}, headers=bearer(one["key"]))
            assert (status, "admin's API key" in answer["error"]) == (403, True)
        assert await cancelled(service, {"filter": {"key": one["id"]}}, bearer(one["key"])) == 2
        assert await cancelled(service, {"filter": {"key": other["id"], "status": ["queued"]}}, admin) >= 2
        assert await cancelled(service, {"filter": {"owner": f"key:{other['id']}"}}, admin) <= 1
        assert await cancelled(service, {"everybody": True}, admin) == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"filters": {}}, "filters"),
        ({"filter": {"states": []}}, "filter.states"),
        ({"filter": {"status": ["completed"]}}, "filter.status[0]"),
        ({"filter": {"status": "queued"}}, "filter.status"),
        ({"everybody": "yes"}, "everybody"),
    ],
)
async def test_what_it_does_not_know_is_refused_and_cancels_nothing(body: dict[str, Any], field: str) -> None:
    async with service_in_process(seats=1) as service:
        service.stall()
        await service.submit()
        status, answer = await service.call("POST", CANCEL, body)
        assert (status, answer["field"]) == (400, field)
        assert (await statuses(service))["cancelled"] == 0


async def test_texts_are_looked_through_in_slices_and_once_at_a_time_for_an_owner() -> None:
    async with service_in_process(seats=1) as service:
        service.stall()
        await service.until(await service.submit(), "processing")
        for number in range(30):
            await service.submit(("hay", "a Needle")[number % 2])
        queries, slices = service.jobs.cancelling._queries, []
        ids = queries.ids

        async def noting(which: Filter, first: int, last: int, most: int) -> list[tuple[int, str]]:
            if which.text is not None:
                slices.append(last - first)
            return await ids(which, first, last, most)

        queries.ids = noting  # type: ignore[method-assign]
        service.jobs.views.search_turns = SearchTurns(patience_seconds=0)
        async with service.jobs.views.search_turns.turn("127.0.0.1"):
            status, answer = await service.call("POST", CANCEL, {"filter": {"q": "needle"}})
            assert (status, "another search of yours" in answer["error"]) == (429, True)
        assert slices == []
        assert await cancelled(service, {"filter": {"q": "needle"}}) == 15
        assert len(slices) > 3
        assert slices[0] < 8
        assert (await statuses(service))["queued"] == 15


async def test_submissions_go_on_meanwhile_and_what_comes_later_is_left_alone() -> None:
    async with service_in_process({"queue.max_size": 5_000, "queue.max_size_per_owner": 0}, seats=1) as service:
        service.stall()
        await service.until(await service.submit(), "processing")
        for _ in range(20):
            await asyncio.gather(*(service.submit() for _ in range(100)))
        cancelling = asyncio.create_task(cancelled(service, {"filter": {"status": ["queued"]}}))
        await service.look(await service.submit(), lambda job: True)
        later = []
        while not cancelling.done():
            later.append(await service.submit())
        assert await cancelling >= 2_000
        # Many were answered while it went on.
        assert len(later) > 20
        assert (await service.call("GET", f"/api/v1/prompt/{later[-1]}/status"))[1]["status"] == "queued"


async def test_what_is_counted_away_before_it_is_heard_of_makes_no_total_negative() -> None:
    async with service_in_process() as service:
        # As where this process ends a job of another one, whose word of it comes later.
        service.jobs.backlog.gauges.move(LINE, "queued", "cancelled", 10)
        status, page = await service.call("GET", "/api/v1/prompts", params={"status": "queued"})
        assert (status, page["total"], page["prompts"]) == (200, 0, [])
        assert (await service.call("GET", "/health"))[1]["queue"]["queued"] == 0
        async with service.session.get("/metrics") as metrics:
            assert 'corral_jobs{status="queued"} 0.0' in await metrics.text()
