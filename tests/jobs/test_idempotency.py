"""However often a request with an idempotency key comes, it is one job, and all who send it get one answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedSettings
from tests.support.processes import Service
from tests.support.running import MODELS, PATIENCE_SECONDS, RunningService, service_in_process

SETTINGS = SimulatedSettings(models=(*MODELS, SimulatedModel("embedder", ("embedding",))), parallel=8, tokens=20)
CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}], "stream": True}
KEY = {"Idempotency-Key": "6b1c2f"}
ROUTES: dict[str, dict[str, Any]] = {
    "/api/generate": {"model": "llama3.2", "prompt": "Why?"},
    "/api/chat": CHAT,
    "/api/embed": {"model": "embedder", "input": ["a", "b"]},
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "llama3.2", "prompt": "Why?", "stream": True},
    "/v1/responses": {"model": "llama3.2", "input": "Why?", "stream": True},
    "/v1/messages": {**CHAT, "max_tokens": 9},
}


async def ask(
    service: RunningService | Service, path: str, body: Any, headers: dict[str, str]
) -> tuple[int, str | None, bytes, dict[str, str]]:
    """Status, content type, body and all headers, over a connection of its own."""
    async with (
        aiohttp.ClientSession(service.url) as session,
        session.post(path, data=body if isinstance(body, bytes) else json.dumps(body), headers=headers) as reply,
    ):
        return reply.status, reply.headers.get("Content-Type"), await reply.read(), dict(reply.headers)


async def total(service: RunningService) -> int:
    return int((await service.call("GET", "/api/v1/prompts"))[1]["total"])


async def until_waiting(service: RunningService, count: int) -> None:
    """Wait until so many callers share replies."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sum(relay.readers for relay in service.jobs.ledger.relays.values()) != count:
            await service.call("GET", "/api/version")


async def until_total(service: RunningService, status: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await service.call("GET", f"/api/v1/prompts?status={status}"))[1]["total"] != count:
            pass


@pytest.mark.parametrize("path", ROUTES)
async def test_a_finished_call_is_answered_again_byte_for_byte(path: str) -> None:
    async with service_in_process(settings=SETTINGS) as service:
        first = await ask(service, path, ROUTES[path], KEY)
        asked = service.ollama.observations.requests[path]
        again = await ask(service, path, ROUTES[path], KEY)
        assert again[:3] == first[:3]
        assert again[3]["X-Job-Id"] == first[3]["X-Job-Id"]
        assert again[3]["Idempotent-Replayed"] == "true"
        assert "Idempotent-Replayed" not in first[3]
        assert service.ollama.observations.requests[path] == asked
        assert await total(service) == 1


@pytest.mark.parametrize(("path", "body"), [("/api/v1/prompt", {"prompt": "Why?"}), ("/generate", {"prompt": "Why?"})])
async def test_a_submission_is_one_job(path: str, body: dict[str, Any]) -> None:
    async with service_in_process(settings=SETTINGS) as service:
        replies = await asyncio.gather(*(ask(service, path, body, KEY) for _ in range(5)))
        assert {reply[0] for reply in replies} == {replies[0][0]}
        name = "id" if path == "/api/v1/prompt" else "request_id"
        assert len({json.loads(reply[2])[name] for reply in replies}) == 1
        assert sorted("Idempotent-Replayed" in reply[3] for reply in replies) == [False, True, True, True, True]
        assert await total(service) == 1


async def test_calls_that_come_before_the_first_is_on_disk_share_its_reply() -> None:
    async with service_in_process(settings=SETTINGS, seats=1) as service:
        stall = service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3, endpoint="/api/chat"))
        callers = [asyncio.create_task(ask(service, "/api/chat", CHAT, KEY)) for _ in range(4)]
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        late = asyncio.create_task(ask(service, "/api/chat", CHAT, KEY))
        stall.release()
        replies = await asyncio.gather(*callers, late)
        assert len({reply[2] for reply in replies}) == 1
        assert replies[0][2].count(b'"done":true') == 1
        assert service.ollama.observations.requests["/api/chat"] == 1


async def test_one_of_two_callers_may_leave() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        stall = service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3, endpoint="/api/chat"))
        first = asyncio.create_task(ask(service, "/api/chat", CHAT, KEY))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        second = asyncio.create_task(ask(service, "/api/chat", CHAT, KEY))
        await until_waiting(service, 2)
        first.cancel()
        await asyncio.wait((first,))
        await until_waiting(service, 1)
        stall.release()
        assert b'"done":true' in (await second)[2]


async def test_a_call_whose_caller_was_cut_off_is_made_again() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3, times=1, endpoint="/api/chat"))
        first = asyncio.create_task(ask(service, "/api/chat", CHAT, KEY))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        first.cancel()
        await asyncio.wait((first,))
        await until_total(service, "cancelled", 1)
        status, _, body, headers = await ask(service, "/api/chat", CHAT, KEY)
        assert status == 200
        assert b'"done":true' in body
        assert "Idempotent-Replayed" not in headers
        assert (await ask(service, "/api/chat", CHAT, KEY))[2] == body


async def test_the_same_key_with_another_body_or_at_another_route_is_422() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        await ask(service, "/api/chat", CHAT, KEY)
        for path, body in (
            ("/api/chat", {**CHAT, "stream": False}),
            ("/v1/chat/completions", CHAT),
            ("/api/v1/prompt", {"prompt": "Why?"}),
            ("/generate", {"prompt": "Why?"}),
        ):
            status, _, answer, _ = await ask(service, path, body, KEY)
            assert status == 422, path
            assert "Idempotency-Key" in json.dumps(json.loads(answer))
        assert await total(service) == 1


async def test_a_key_must_be_short_and_printable() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        for key in ("", "x" * 256, "ä"):
            status, *_ = await ask(service, "/api/v1/prompt", {"prompt": "Why?"}, {"Idempotency-Key": key})
            assert status == 400


async def test_a_refusal_and_a_failure_are_repeated_too() -> None:
    options = {"retry.initial_seconds": 0.001, "retry.cap_seconds": 0.001, "retry.max_retries": 1}
    async with service_in_process(options, SETTINGS) as service:
        unknown = {**CHAT, "model": "nosuch"}
        first = await ask(service, "/api/chat", unknown, KEY)
        assert (first[0], (await ask(service, "/api/chat", unknown, KEY))[:3]) == (404, first[:3])
        service.ollama.arm(Fault(kind=FaultKind.HANG_UP, endpoint="/api/chat"))
        other = {"Idempotency-Key": "another"}
        first = await ask(service, "/api/chat", CHAT, other)
        assert (first[0], (await ask(service, "/api/chat", CHAT, other))[:3]) == (503, first[:3])
        assert await total(service) == 2


async def test_a_key_belongs_to_who_sent_it() -> None:
    admin = {"Authorization": "Bearer sk-admin-for-idempotency"}
    async with service_in_process({"auth.demo_admin_key": "sk-admin-for-idempotency"}) as service:
        first = await ask(service, "/api/chat", CHAT, KEY)
        other = await ask(service, "/api/chat", {**CHAT, "stream": False}, {**KEY, **admin})
        assert (first[0], other[0]) == (200, 200)
        assert first[3]["X-Job-Id"] != other[3]["X-Job-Id"]


async def test_what_was_answered_before_a_restart_is_answered_again(tmp_path: Path) -> None:
    async with service_in_process(settings=SETTINGS, folder=tmp_path) as service:
        replies = {path: await ask(service, path, body, {"Idempotency-Key": path}) for path, body in ROUTES.items()}
    async with service_in_process(settings=SETTINGS, folder=tmp_path) as service:
        for path, body in ROUTES.items():
            again = await ask(service, path, body, {"Idempotency-Key": path})
            assert again[:3] == replies[path][:3]
            assert service.ollama.observations.requests[path] == 0


async def test_a_call_that_is_to_be_finished_is_taken_up_again_after_a_restart(tmp_path: Path) -> None:
    headers = {**KEY, "X-On-Disconnect": "finish"}
    async with service_in_process(settings=SETTINGS, folder=tmp_path) as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3, endpoint="/api/chat"))
        caller = asyncio.create_task(ask(service, "/api/chat", CHAT, headers))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        await service.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller
    async with service_in_process(settings=SETTINGS, folder=tmp_path) as service:
        status, _, body, _ = await ask(service, "/api/chat", CHAT, headers)
        assert status == 200
        assert body.count(b'"done":true') == 1
        assert (await ask(service, "/api/chat", CHAT, headers))[2] == body
        assert await total(service) == 1
        assert service.ollama.observations.requests["/api/chat"] == 1


async def test_without_a_key_nothing_is_kept(tmp_path: Path) -> None:
    async with service_in_process(settings=SETTINGS, folder=tmp_path) as service:
        await ask(service, "/api/chat", CHAT, {})
        await ask(service, "/api/chat", CHAT, {})
        assert await total(service) == 2
        assert await service.jobs.repeats.prune_repeats(1 << 60) == 0
        await ask(service, "/api/chat", CHAT, KEY)
        assert await service.jobs.repeats.prune_repeats(1) == 0
        assert await service.jobs.repeats.prune_repeats(1 << 60) == 1
        assert "Idempotent-Replayed" not in (await ask(service, "/api/chat", CHAT, KEY))[3]
