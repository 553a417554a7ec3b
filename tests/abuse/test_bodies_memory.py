"""Memory of bodies is given back at once: of those that never end, and of those that are stored."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import socket
import struct
from pathlib import Path

import aiohttp
import pytest

from tests.support.process_figures import resident_bytes
from tests.support.processes import PATIENCE_SECONDS, Service, running_service, simulated_process

UNFINISHED = {"reset": 16, "closed": 40}
UNFINISHED_BYTES = 16 << 20
LEFT_BYTES = 30 << 20
WAITING = 30
IMAGE = base64.b64encode(os.urandom(5_000_000)).decode()
WAITING_LEFT_BYTES = 100 << 20
"""A quarter of what so many bodies are. SQLite's caches are in it, and the one job that runs."""


async def began(service: Service, *, is_chunked: bool) -> asyncio.StreamWriter:
    """Send a body but for its end."""
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    length = UNFINISHED_BYTES + 10
    size = f"Transfer-Encoding: chunked\r\n\r\n{length:x}" if is_chunked else f"Content-Length: {length}\r\n"
    writer.write(f"POST /api/chat HTTP/1.1\r\nHost: x\r\n{size}\r\n".encode())
    for _ in range(UNFINISHED_BYTES >> 20):
        writer.write(b"x" * (1 << 20))
        await writer.drain()
    return writer


async def served(service: Service) -> None:
    """The service has come to what it was sent before."""
    async with aiohttp.ClientSession(service.url) as session:
        for _ in range(20):
            async with session.get("/openapi.json") as response:
                assert response.status == 200
                await response.read()


async def until_below(service: Service, most: int) -> int:
    """The memory of the process, when it is below so much; at the latest after a while."""
    found = resident_bytes(service.process.pid)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while found >= most:
                await served(service)
                found = resident_bytes(service.process.pid)
    except TimeoutError:
        pass
    return found


@pytest.mark.parametrize("ending", ["reset", pytest.param("closed", marks=pytest.mark.long)])
async def test_bodies_that_never_end_leave_nothing_behind(tmp_path: Path, ending: str) -> None:
    number = UNFINISHED[ending]
    async with running_service(tmp_path, CORRAL_SERVER__MAX_BODIES_BYTES="2 GiB") as service:
        await served(service)
        before = resident_bytes(service.process.pid)
        for is_chunked in (False, True):
            writers = await asyncio.gather(*(began(service, is_chunked=is_chunked) for _ in range(number)))
            await served(service)
            assert resident_bytes(service.process.pid) > before + number * UNFINISHED_BYTES // 2
            for writer in writers:
                if ending == "reset":
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            await served(service)
            # Nothing is awaited that a garbage collector would have to do: it may run hours later.
            assert resident_bytes(service.process.pid) < before + LEFT_BYTES


async def test_calls_that_wait_keep_nothing_of_their_images(tmp_path: Path) -> None:
    body = {"model": "llama3.2", "messages": [{"role": "user", "content": "What is it?", "images": [IMAGE]}]}
    data = json.dumps(body).encode()
    assert WAITING * len(data) > 190_000_000
    async with (
        simulated_process(tmp_path, "--token-seconds", "1000") as ollama,
        running_service(
            tmp_path, CORRAL_BACKENDS=json.dumps([{"name": "simulated", "url": ollama, "concurrency": 1}])
        ) as service,
        aiohttp.ClientSession(service.url, connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        await served(service)
        before = resident_bytes(service.process.pid)

        async def wait() -> int:
            async with session.post("/api/chat", data=io.BytesIO(data)) as response:
                return response.status

        calls = [asyncio.create_task(wait()) for _ in range(WAITING)]
        total = 0
        async with asyncio.timeout(PATIENCE_SECONDS):
            while total < WAITING:
                async with session.get("/api/v1/prompts", params={"page_size": "1"}) as response:
                    total = (await response.json())["total"]
        left = await until_below(service, before + WAITING_LEFT_BYTES)
        assert left - before < WAITING_LEFT_BYTES
        assert not any(call.done() and call.result() != 200 for call in calls)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
