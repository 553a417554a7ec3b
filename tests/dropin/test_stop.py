"""When the service stops under waiting callers: each is told at once, and its job goes the way it asked for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.simulated import Fault, FaultKind
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

FINISH = {"X-On-Disconnect": "finish"}


def chat(content: str, *, stream: bool) -> dict[str, Any]:
    return {"model": "llama3.2", "messages": [{"role": "user", "content": content}], "stream": stream}


async def call(service: RunningService, body: dict[str, Any], **headers: str) -> tuple[int, str | None, bytes, bool]:
    """Status, Retry-After, what came of the body, and whether it ended as it should."""
    async with (
        aiohttp.ClientSession(service.url) as session,
        session.post("/api/chat", json=body, headers=headers) as reply,
    ):
        received = b""
        try:
            async for piece in reply.content.iter_any():
                received += piece
        except aiohttp.ClientPayloadError:
            return reply.status, reply.headers.get("Retry-After"), received, False
        return reply.status, reply.headers.get("Retry-After"), received, True


async def until_queued(service: RunningService, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await service.call("GET", "/api/v1/prompts?status=queued"))[1]["total"] != count:
            pass


async def until_finished(service: RunningService, prompt: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await statuses(service))[prompt] in ("queued", "processing"):
            pass


async def statuses(service: RunningService) -> dict[str, str]:
    _, answer = await service.call("GET", "/api/v1/prompts?page_size=100")
    return {job["prompt"]: job["status"] for job in answer["prompts"]}


@pytest.mark.parametrize("stream", [True, False])
async def test_callers_in_the_queue_are_told_at_once(tmp_path: Path, stream: bool) -> None:
    async with service_in_process({"server.drain_seconds": 3600}, seats=1, folder=tmp_path) as service:
        stall = service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3, endpoint="/api/chat"))
        running = asyncio.create_task(call(service, chat("running", stream=stream)))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        waiting = asyncio.create_task(call(service, chat("waiting", stream=stream)))
        to_finish = asyncio.create_task(call(service, chat("to finish", stream=stream), **FINISH))
        await until_queued(service, 2)
        stop = asyncio.create_task(service.stop())
        for caller in (waiting, to_finish):
            status, retry_after, body, is_whole = await caller
            assert (status, is_whole) == (503, True)
            assert retry_after is not None
            assert "stopping" in json.loads(body)["error"]
        # Whoever is being answered has drain_seconds.
        assert not stop.done()
        stall.release()
        status, _, body, is_whole = await running
        assert (status, is_whole) == (200, True)
        assert b'"done":true' in body
        await stop
    async with service_in_process(folder=tmp_path) as service:
        await until_finished(service, "to finish")
        assert await statuses(service) == {"running": "completed", "waiting": "cancelled", "to finish": "completed"}


async def test_whoever_is_being_answered_when_the_time_is_up_hears_of_it(tmp_path: Path) -> None:
    async with service_in_process({"server.drain_seconds": 0}, folder=tmp_path) as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3, endpoint="/api/chat"))
        streamed = asyncio.create_task(call(service, chat("streamed", stream=True)))
        whole = asyncio.create_task(call(service, chat("whole", stream=False)))
        to_finish = asyncio.create_task(call(service, chat("to finish", stream=True), **FINISH))
        await service.ollama.observations.until(lambda seen: seen.stalled == 3)
        await service.stop()
        for caller in (streamed, to_finish):
            status, _, body, is_whole = await caller
            assert (status, is_whole) == (200, False)
            assert "stopping" in json.loads(body.splitlines()[-1])["error"]
        status, retry_after, body, _ = await whole
        assert status == 503
        assert retry_after is not None
    async with service_in_process(folder=tmp_path) as service:
        await until_finished(service, "to finish")
        assert await statuses(service) == {"streamed": "cancelled", "whole": "cancelled", "to finish": "completed"}
