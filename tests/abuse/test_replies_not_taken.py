"""Callers that ask for much and read nothing: what waits for them is bounded, also in time, and nobody else notices."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.api.http.callers import CALLERS
from service.app import REPLIES
from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedSettings
from tests.support.process_figures import MIB, MemoryPeak
from tests.support.processes import PATIENCE_SECONDS, running_service, simulated_process
from tests.support.running import MODELS, RunningService, service_in_process

LARGE = 15 * MIB
READERS = 40
"""Each would hold LARGE, which is four times in all what they may."""
SETTINGS = SimulatedSettings(models=(*MODELS, SimulatedModel("embedder", ("embedding",))), parallel=8)
VECTORS = '{"model":"embedder","embeddings":[[0.5…,0.25…]]}'


class SilentReader:
    """A caller on a connection of its own that reads the head of its reply, and nothing more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert isinstance(self._writer.transport, asyncio.Transport)
        self._writer.transport.pause_reading()

    async def left(self) -> int:
        """How much of the reply there is until the connection is closed, or broken."""
        assert isinstance(self._writer.transport, asyncio.Transport)
        self._writer.transport.resume_reading()
        received = 0
        try:
            while data := await self._reader.read(MIB):
                received += len(data)
        except ConnectionError:
            pass
        return received


@asynccontextmanager
async def silent_readers(url: str, count: int) -> AsyncIterator[list[SilentReader]]:
    """So many of them; each keeps little of what comes in its own buffers."""
    host, port = url.removeprefix("http://").split(":")
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            connection = socket.socket()
            # What the kernel takes in the reader's stead is of no interest.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
            reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
            stack.callback(writer.transport.abort)
            found.append(SilentReader(reader, writer))
        yield found


async def _result(session: aiohttp.ClientSession, job_id: str) -> str:
    async with session.get(f"/api/v1/prompt/{job_id}/result") as reply:
        return str((await reply.json())["result"])


@pytest.mark.parametrize("view", ["result", "stream", "request", "replay"])
async def test_readers_that_read_nothing_hold_little(tmp_path: Path, view: str) -> None:
    async with (
        simulated_process(tmp_path) as ollama,
        running_service(tmp_path, OLLAMA_URL=ollama) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        fault = {"kind": "long_line", "endpoint": "/api/generate", "size": LARGE}
        async with session.post(f"{ollama}/simulated/faults", json=fault) as armed:
            assert armed.status == 200
        body = {"model": "llama3.2", "prompt": "Why?" + " " * (3 * MIB if view == "request" else 0), "stream": True}
        key = {"Idempotency_Key": "once"}
        data = io.BytesIO(json.dumps(body).encode())
        async with session.post("/api/generate", data=data, headers={"Idempotency-Key": "once"}) as reply:
            assert reply.status == 200
            whole = sum([len(piece) async for piece in reply.content.iter_any()])
            job_id = reply.headers["X-Job-Id"]
        async with session.get(f"/api/v1/prompt/{job_id}/status?wait=60&status=processing") as reply:
            assert (await reply.json())["status"] == "completed"
        peak = MemoryPeak(service.process.pid)
        async with silent_readers(service.url, READERS) as readers:
            if view == "replay":
                await asyncio.gather(*(one.ask("POST", "/api/generate", body, **key) for one in readers))
            else:
                path = f"/api/v1/prompt/{job_id}/{view}"
                await asyncio.gather(*(one.ask("GET", path) for one in readers))
            # All of them have begun to be answered, and nobody else waits for one of them.
            result = await _result(session, job_id)
            assert LARGE < len(result) < whole
            assert peak.grown_bytes < 150 * MIB


Ask = Callable[[RunningService, SilentReader, str], Awaitable[None]]


async def _asks_for_result(service: RunningService, reader: SilentReader, job_id: str) -> None:
    await reader.ask("GET", f"/api/v1/prompt/{job_id}/result")


async def _asks_for_result_from_a_page(service: RunningService, reader: SilentReader, job_id: str) -> None:
    await reader.ask("GET", f"/api/v1/prompt/{job_id}/result", Origin="http://elsewhere.example")


async def _asks_for_reply(service: RunningService, reader: SilentReader, job_id: str) -> None:
    await reader.ask("POST", "/api/embed", {"model": "embedder", "input": "x"})


async def _asks_for_kept_reply(service: RunningService, reader: SilentReader, job_id: str) -> None:
    body = {"model": "embedder", "input": "x"}
    headers = {"Idempotency-Key": "once", "Content-Type": "application/json"}
    async with service.session.post("/api/embed", data=json.dumps(body), headers=headers) as reply:
        await reply.read()
        await service.until(reply.headers["X-Job-Id"], "completed")
    await reader.ask("POST", "/api/embed", body, Idempotency_Key="once")


async def _asks_for_stream(service: RunningService, reader: SilentReader, job_id: str) -> None:
    service.ollama.arm(Fault(kind=FaultKind.LONG_LINE, endpoint="/api/chat", size=LARGE))
    messages = [{"role": "user", "content": "Why?"}]
    await reader.ask("POST", "/api/chat", {"model": "llama3.2", "messages": messages})


@pytest.mark.parametrize(
    "ask",
    [_asks_for_result, _asks_for_result_from_a_page, _asks_for_reply, _asks_for_kept_reply, _asks_for_stream],
)
async def test_who_takes_nothing_is_cut_off_sooner_where_much_waits(ask: Ask) -> None:
    async with service_in_process(settings=SETTINGS) as service:
        callers = service.app[CALLERS]
        service.ollama.arm(Fault(kind=FaultKind.LONG_LINE, endpoint="/api/generate", size=LARGE))
        service.ollama.arm(Fault(kind=FaultKind.FLOOD, endpoint="/api/embed", body=VECTORS, size=3 * MIB))
        job_id = await service.finished()
        async with silent_readers(service.url, 1) as (reader,):
            await ask(service, reader, job_id)
            callers.patience_with_much_seconds = 0.0
            await until_all_are_answered(service)
            assert await reader.left() < LARGE // 2
        async with asyncio.timeout(PATIENCE_SECONDS):
            while service.app[REPLIES].held_bytes:
                await service.call("GET", "/api/version")


async def test_who_takes_nothing_of_little_is_given_more_time() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        callers = service.app[CALLERS]
        callers.patience_with_much_seconds = 0.0
        service.ollama.arm(Fault(kind=FaultKind.LONG_LINE, endpoint="/api/generate", size=900_000))
        job_id = await service.finished()
        async with silent_readers(service.url, 1) as (reader,):
            await _asks_for_result(service, reader, job_id)
            result = await _result(service.session, job_id)
            left = asyncio.create_task(reader.left())
            await until_all_are_answered(service)
            callers.patience_seconds = 0.0
            await service.stop()
            assert await left > len(result)


async def until_all_are_answered(service: RunningService) -> None:
    """Until nobody is left whom the service writes to."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(service.app[CALLERS]):
            await service.call("GET", "/api/version")


@pytest.mark.parametrize("size", [10, 200_000, 3_000_000])
async def test_a_result_is_the_same_however_long(size: int) -> None:
    async with service_in_process(settings=SETTINGS) as service:
        service.ollama.arm(Fault(kind=FaultKind.LONG_LINE, endpoint="/api/generate", size=size, after_tokens=1))
        prompt = 'W"hy\\ é \N{GRINNING FACE}?' + "x" * size
        body = io.BytesIO(json.dumps({"prompt": prompt}).encode())
        async with service.session.post("/api/v1/prompt", data=body) as reply:
            job_id = (await reply.json())["id"]
        await service.until(job_id, "completed")
        status, result = await service.call("GET", f"/api/v1/prompt/{job_id}/result")
        assert (status, result["status"], result["prompt"]) == (200, "completed", prompt)
        assert len(result["result"]) > size
        assert {"timings", "completion_tokens", "done_reason", "endpoint"} <= set(result)
        async with service.session.head(f"/api/v1/prompt/{job_id}/result") as head:
            assert (head.status, await head.read()) == (200, b"")
        streamed = ""
        async with service.session.get(f"/api/v1/prompt/{job_id}/stream") as reply:
            events = (await reply.text()).split("\n\n")
        for event in events:
            if event.startswith("event: output"):
                streamed += json.loads(event.rpartition("data: ")[2])["data"]
        assert streamed == result["result"]
        _, request = await service.call("GET", f"/api/v1/prompt/{job_id}/request")
        assert request == {"model": "llama3.2", "prompt": prompt, "stream": True}
        _, listed = await service.call("GET", "/requests")
        number = listed["requests"][0]["request_id"]
        _, found = await service.call("GET", f"/status/{number}")
        assert (found["prompt"], found["response"], found["status"]) == (prompt, result["result"], "completed")


async def test_a_long_stream_goes_on_from_any_place_in_it() -> None:
    async with service_in_process(settings=SETTINGS) as service:
        service.ollama.arm(Fault(kind=FaultKind.LONG_LINE, endpoint="/api/generate", size=1_000_000))
        job_id = await service.finished()
        result = await _result(service.session, job_id)
        for offset in (0, 1, 300_000, 999_999, len(result)):
            async with service.session.get(f"/api/v1/prompt/{job_id}/stream?from=1.{offset}") as reply:
                text = await reply.text()
            pieces = [json.loads(one.rpartition("data: ")[2]) for one in text.split("\n\n") if "event: output" in one]
            assert "".join(piece["data"] for piece in pieces) == result[offset:]
            assert "event: restart" not in text
        async with service.session.get(f"/api/v1/prompt/{job_id}/stream?from=1.{len(result) + 1}") as reply:
            text = await reply.text()
        assert text.index("event: restart") < text.index("event: output") < text.index("event: done")
