"""Streams through real proxies: what they hold back, what they pass on, and whether a client behind them sees a cut."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from service.simulated import Fault, FaultKind
from tests.dropin.test_wire import CHAT, is_whole
from tests.support.outside_programs import PROXIES, program_path
from tests.support.proxies import proxy_before
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = "long " * 60_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    """One for all: each test looks at its own stream."""
    async with service_in_process() as running:
        yield running


class Proxies:
    """Those that were asked for, each started once."""

    def __init__(self, service: RunningService, folders: pytest.TempPathFactory, stack: AsyncExitStack) -> None:
        self._service = service
        self._folders = folders
        self._stack = stack
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def through(self, name: str) -> aiohttp.ClientSession:
        """A client behind this proxy. Without it the test is skipped, or fails where CI=true."""
        if name not in self._sessions:
            program = program_path(name)
            if program is None:
                (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no {name}: run python -m tests")
            started = proxy_before(self._service.url, name, program, self._folders.mktemp(name))
            url = await self._stack.enter_async_context(started)
            self._sessions[name] = await self._stack.enter_async_context(aiohttp.ClientSession(url))
        return self._sessions[name]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxies(service: RunningService, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Proxies]:
    async with AsyncExitStack() as stack:
        yield Proxies(service, tmp_path_factory, stack)


async def read_until(response: aiohttp.ClientResponse, text: bytes) -> bytes:
    """What has come when this text has."""
    data = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while text not in data:
            piece = await response.content.readany()
            assert piece, data
            data += piece
    return data


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize("name", PROXIES)
async def test_the_first_token_passes_before_the_second_is_sent(
    service: RunningService, proxies: Proxies, name: str, path: str
) -> None:
    session = await proxies.through(name)
    stalled = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint=path, after_tokens=1))
    async with session.post(path, json=CHAT) as response:
        begun = await read_until(response, b'"content":')
        stalled.release()
        data = begun + await response.read()
    assert is_whole(data) if path == "/api/chat" else data.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("name", PROXIES)
async def test_an_event_of_a_job_passes_before_the_next_is_there(
    service: RunningService, proxies: Proxies, name: str
) -> None:
    session = await proxies.through(name)
    stalled = service.stall(after_tokens=1)
    job_id = await service.submit()
    async with session.get(f"/api/v1/prompt/{job_id}/stream") as response:
        await read_until(response, b"event: output")
        stalled.release()
        assert b"event: done" in await response.read()


@pytest.mark.parametrize("name", PROXIES)
async def test_a_long_reply_passes_whole(service: RunningService, proxies: Proxies, name: str) -> None:
    session = await proxies.through(name)
    job_id = await service.finished(LONG)
    async with session.get(f"/api/v1/prompt/{job_id}/result") as response:
        result: dict[str, Any] = json.loads(await response.read())
    assert (result["status"], result["prompt"]) == ("completed", LONG)


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
async def test_a_stream_that_is_cut_is_cut_for_the_client_too(
    service: RunningService, proxies: Proxies, name: str
) -> None:
    session = await proxies.through(name)
    broken = service.ollama.arm(Fault(kind=FaultKind.HANG_UP, endpoint="/api/chat", after_tokens=3))
    async with session.post("/api/chat", json=CHAT) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    broken.remove()
