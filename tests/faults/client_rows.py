"""What clients do: read slowly, and leave at any stage."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp

from service.simulated import Fault, FaultKind
from tests.faults.rows import row
from tests.faults.stage import MODEL, PROMPT, Stage, stage
from tests.support.running import PATIENCE_SECONDS

CLIENT = "A client"
LARGE = 4_000_000
"""Bytes of an answer that fits into no socket's buffers."""


@row(CLIENT, "follows a job and does not read", "the job and all others go on; its own stream waits for it")
async def reads_nothing(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.LONG_LINE, size=LARGE)
        stalled = it.arm(FaultKind.STALL)
        job_id = await it.submit()
        with closing(_connection(it)) as slow:
            slow.sendall(f"GET /api/v1/prompt/{job_id}/stream HTTP/1.1\r\nHost: corral\r\n\r\n".encode())
            beginning = await asyncio.to_thread(slow.recv, 100)
            assert b"200 OK" in beginning
            stalled.release()
            assert (await it.ends(job_id, "completed"))["attempt"] == 1
            await it.is_well()
            slow.setblocking(True)
            read = await asyncio.to_thread(_read_until, slow, b"event: done")
            assert read > LARGE


@row(CLIENT, "reads a drop-in reply slowly", "the backend is not slowed down, and the reply is whole")
async def reads_slowly(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.LONG_LINE, size=LARGE)
        body = json.dumps({"model": MODEL, "prompt": PROMPT}).encode()
        with closing(_connection(it)) as slow:
            head = f"POST /api/generate HTTP/1.1\r\nHost: corral\r\nContent-Length: {len(body)}\r\n\r\n"
            slow.sendall(head.encode() + body)
            assert b"200 OK" in await asyncio.to_thread(slow.recv, 100)
            await it.ollama.observations.until(lambda seen: seen.answers == 1)
            await it.is_well()
            assert await asyncio.to_thread(_read_until, slow, b'"done":true') > LARGE


@row(CLIENT, "leaves in the middle of sending a prompt", "nothing is stored")
async def gone_while_sending(folder: Path) -> None:
    async with stage() as it:
        with closing(_connection(it)) as leaving:
            leaving.sendall(
                b'POST /api/v1/prompt HTTP/1.1\r\nHost: corral\r\nContent-Length: 500\r\n\r\n{"prompt": "ha'
            )
            await it.service.call("GET", "/health")
        _, page = await it.service.call("GET", "/api/v1/prompts")
        assert page["total"] == 0
        await it.is_well()


@row(CLIENT, "submits a prompt and leaves before the answer", "what was sent whole is a job, and is answered")
async def gone_before_the_answer(folder: Path) -> None:
    async with stage() as it:
        body = json.dumps({"prompt": PROMPT, "model": MODEL}).encode()
        with closing(_connection(it)) as leaving:
            head = f"POST /api/v1/prompt HTTP/1.1\r\nHost: corral\r\nContent-Length: {len(body)}\r\n\r\n"
            leaving.sendall(head.encode() + body)
        await it.ollama.observations.until(lambda seen: seen.answers == 1)
        # Its call begins while the job is on its way to the disk.
        await it.completes(await _only_job(it, "completed"))
        await it.is_well()


@row(CLIENT, "leaves while it follows a job, by events or by websocket", "the job goes on; coming back loses nothing")
async def gone_while_following(folder: Path) -> None:
    async with stage() as it:
        stalled = it.arm(FaultKind.STALL, after_tokens=4)
        job_id = await it.submit()
        follower = await it.follow(job_id)
        await follower.sees_output()
        assert follower.reading is not None
        follower.reading.cancel()
        await asyncio.wait((follower.reading,))
        async with it.service.session.ws_connect("/api/v1/ws") as websocket:
            await websocket.send_json({"type": "subscribe", "channel": "job", "id": job_id})
            await websocket.receive_json()
        again = await it.follow(job_id)
        stalled.release()
        await again.ends()
        assert (again.text, again.restarts) == (PROMPT, 0)
        assert (await it.completes(job_id))["attempt"] == 1
        await it.is_well()


@row(CLIENT, "leaves while its drop-in call waits for a seat", "its job is cancelled, and Ollama never hears of it")
async def gone_while_queued(folder: Path) -> None:
    async with stage(seats=1) as it:
        stalled = it.arm(FaultKind.STALL)
        first = await it.submit()
        await _until_stalled(it)
        caller = _call(it, "never asked")
        waiting = await _only_job(it, "queued")
        await _leave(caller)
        await it.ends(waiting, "cancelled")
        stalled.release()
        await it.completes(first)
        assert "never asked" not in it.ollama.observations.prompts
        await it.is_well()


@row(
    CLIENT,
    "leaves while the model of its drop-in call is loading",
    "the load goes on for the others; the job is cancelled",
)
async def gone_while_loading(folder: Path) -> None:
    async with stage() as it:
        loading = it.ollama.arm(Fault(kind=FaultKind.LOAD_STALL, times=1))
        caller = _call(it, "leaves")
        job_id = await _only_job(it, "processing")
        await it.ollama.observations.until(lambda seen: seen.loading is not None)
        others = await it.submit()
        await _leave(caller)
        await it.ends(job_id, "cancelled")
        loading.release()
        await it.completes(others)
        assert it.ollama.observations.aborted_loads == 0
        assert it.ollama.observations.loads.total() == 1
        await it.is_well()


@row(CLIENT, "leaves in the middle of its drop-in reply", "its job is cancelled, and the call to Ollama closed")
async def gone_while_reading(folder: Path) -> None:
    async with stage() as it:
        it.arm(FaultKind.STALL, after_tokens=4)
        caller = _call(it, PROMPT)
        job_id = await _only_job(it, "processing")
        await _until_stalled(it)
        await _leave(caller)
        await it.ends(job_id, "cancelled")
        await it.ollama.observations.until(lambda seen: seen.closed_connections == 1)
        await it.is_well()


@row(CLIENT, "leaves so, having asked for `X-On-Disconnect: finish`", "its job is completed")
async def gone_but_wants_it_finished(folder: Path) -> None:
    async with stage() as it:
        stalled = it.arm(FaultKind.STALL, after_tokens=4)
        caller = _call(it, PROMPT, **{"X-On-Disconnect": "finish"})
        job_id = await _only_job(it, "processing")
        await _until_stalled(it)
        await _leave(caller)
        stalled.release()
        assert (await it.completes(job_id))["attempt"] == 1
        await it.is_well()


@row(
    CLIENT,
    "vanishes without a goodbye (no power, no network) while it waits",
    "found in a little more than two minutes: then as if it had left",
)
async def vanished(folder: Path) -> None:
    async with stage() as it:
        stalled = it.arm(FaultKind.STALL, after_tokens=4)
        caller = _call(it, PROMPT)
        job_id = await _only_job(it, "processing")
        await _until_stalled(it)
        assert it.service.runner.server is not None
        [handler] = [one for one in it.service.runner.server.connections if one._current_request is not None]
        # What the kernel does when nobody has answered to its questions.
        handler.transport._force_close(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))  # type: ignore[union-attr]
        await asyncio.wait((caller,))
        assert isinstance(caller.exception(), aiohttp.ClientConnectionError | aiohttp.ClientPayloadError)
        await it.ends(job_id, "cancelled")
        stalled.release()
        await it.is_well()


@row(
    CLIENT, "cancels a job in the middle of its answer", "the call to Ollama is closed; what still comes is not stored"
)
async def cancels(folder: Path) -> None:
    async with stage() as it:
        stalled = it.arm(FaultKind.STALL, after_tokens=4)
        job_id = await it.submit()
        await _until_stalled(it)
        assert (await it.service.call("DELETE", f"/api/v1/prompt/{job_id}"))[1]["status"] == "cancelled"
        stalled.release()
        await it.is_well()
        await it.ends(job_id, "cancelled")


def _connection(it: Stage) -> socket.socket:
    """A client whose buffers are small, and who decides itself when it reads."""
    port = int(it.service.url.rsplit(":", 1)[1])
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    connection.connect(("127.0.0.1", port))
    return connection


def _read_until(connection: socket.socket, end: bytes) -> int:
    """How many bytes came, up to this end."""
    connection.settimeout(PATIENCE_SECONDS)
    count, tail = 0, b""
    while end not in tail:
        data = connection.recv(65_536)
        assert data, "the reply ended early"
        count += len(data)
        tail = (tail + data)[-1000:]
    return count


def _call(it: Stage, prompt: str, **headers: str) -> asyncio.Task[Any]:
    """A drop-in call on a connection of its own; cancelling it closes that."""

    async def call() -> bytes:
        body = {"model": MODEL, "prompt": prompt}
        async with (
            aiohttp.ClientSession(it.service.url) as session,
            session.post("/api/generate", json=body, headers=headers) as response,
        ):
            return await response.read()

    return asyncio.create_task(call())


async def _leave(caller: asyncio.Task[Any]) -> None:
    caller.cancel()
    await asyncio.wait((caller,))


async def _only_job(it: Stage, status: str) -> str:
    """Wait until the newest job has this status; its id."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            _, page = await it.service.call("GET", "/api/v1/prompts", params={"page_size": "1"})
            if page["prompts"] and page["prompts"][0]["status"] == status:
                return str(page["prompts"][0]["id"])


async def _until_stalled(it: Stage) -> None:
    await it.ollama.observations.until(lambda seen: seen.stalled == 1)
