"""Bodies that fill the memory set aside for them: who sends them is refused, everybody else is served, and what is
stored is held no longer.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from service.api import body_room
from service.api.context import BODY_ROOM
from tests.dropin.test_wire import connected, reply_of
from tests.support.access import headers_of, service_with_keys
from tests.support.running import PATIENCE_SECONDS, RunningService

ROOM_BYTES = 4 << 20
BODY_BYTES = 700 * 1024
"""Two fit into an owner's half, and five into the whole."""
AHEAD_BYTES = BODY_BYTES - 10


@pytest_asyncio.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningService]:
    monkeypatch.setattr(body_room, "_PATIENCE_SECONDS", 0.05)
    options = {"server.max_body": 1 << 20, "server.max_bodies_bytes": ROOM_BYTES}
    async with service_with_keys(options, seats=1) as running:
        yield running


def head(headers: dict[str, str], *, path: str = "/api/generate", length: int | None = BODY_BYTES) -> bytes:
    shown = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{shown}{size}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def until_held(service: RunningService, size: int) -> None:
    """Wait until bodies of so many bytes are counted."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while service.app[BODY_ROOM].held != size:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)


class Unfinished:
    """Bodies that never end."""

    def __init__(self, service: RunningService, opened: AsyncExitStack) -> None:
        self._service = service
        self._opened = opened
        self.writers: list[asyncio.StreamWriter] = []

    async def send(self, headers: dict[str, str], *, is_chunked: bool = False) -> asyncio.StreamReader:
        reader, writer = await self._opened.enter_async_context(connected(self._service))
        before = self._service.app[BODY_ROOM].held
        data = b"x" * AHEAD_BYTES
        writer.write(head(headers, length=None if is_chunked else BODY_BYTES) + (chunk(data) if is_chunked else data))
        self.writers.append(writer)
        await until_held(self._service, before + (AHEAD_BYTES if is_chunked else BODY_BYTES))
        return reader


@pytest.mark.parametrize("is_chunked", [False, True], ids=["told lengths", "chunks"])
async def test_an_owner_that_fills_its_half_is_refused_and_the_others_are_served(
    service: RunningService, is_chunked: bool
) -> None:
    bad, victim = await headers_of(service), await headers_of(service)
    large = json.dumps({"model": "llama3.2", "prompt": "x", "stream": False, "padding": "x" * 600_000}).encode()
    async with AsyncExitStack() as opened:
        unfinished = Unfinished(service, opened)
        readers = [await unfinished.send(bad, is_chunked=is_chunked) for _ in range(2)]
        async with connected(service) as (reader, writer):
            # Nothing of the body is sent: it is refused before anybody has read it.
            writer.write(head(bad))
            status, headers, answer = await reply_of(reader)
            assert (status, int(headers["retry-after"]) >= 1) == (503, True)
            assert "server.max_bodies_bytes" in json.loads(answer)["error"]
        async with connected(service) as (reader, writer):
            # It says nothing of its length, and is refused when it is too much.
            writer.write(head(bad, path="/v1/messages", length=None) + chunk(b"x" * AHEAD_BYTES))
            status, headers, answer = await reply_of(reader)
            assert (status, int(headers["retry-after"]) >= 1) == (503, True)
            assert json.loads(answer)["type"] == "error"
        # Small ones of its own pass, too.
        for who, body in ((victim, large), (bad, json.dumps({"model": "llama3.2", "prompt": "x", "stream": False}))):
            async with service.session.post("/api/generate", data=body, headers=who) as response:
                assert response.status == 200, await response.text()
        assert not any(reader.at_eof() for reader in readers)
        for writer in unfinished.writers:
            writer.transport.abort()
        await until_held(service, 0)
    async with service.session.post("/api/generate", data=large, headers=bad) as response:
        assert response.status == 200


async def test_one_that_waits_for_room_gets_it_when_another_leaves(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_room, "_PATIENCE_SECONDS", PATIENCE_SECONDS)
    caller = await headers_of(service)
    body = json.dumps({"model": "llama3.2", "prompt": "x", "stream": False, "padding": "x" * 700_000}).encode()
    async with AsyncExitStack() as opened:
        unfinished = Unfinished(service, opened)
        for _ in range(2):
            await unfinished.send(caller)
        call = asyncio.create_task(service.call("POST", "/api/generate", body, headers=caller))
        room = service.app[BODY_ROOM]
        while not room._waiting:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
        unfinished.writers[0].transport.abort()
        assert (await call)[0] == 200


@pytest.mark.parametrize("named", [{}, {"Idempotency-Key": "once"}], ids=["plain", "with a key"])
@pytest.mark.parametrize("is_packed", [False, True], ids=["as it is", "packed"])
async def test_a_call_that_waits_holds_nothing_of_its_body_once_it_is_stored(
    service: RunningService, named: dict[str, str], is_packed: bool
) -> None:
    caller = await headers_of(service)
    stalled = service.stall(after_tokens=1)
    model = {"model": "llama3.2", "prompt": "x"}
    async with service.session.post("/api/generate", json=model, headers=caller) as running:
        await running.content.readany()
        body: Any = json.dumps({**model, "stream": False, "padding": "x" * 600_000}).encode()
        headers = caller | named
        if is_packed:
            body, headers = gzip.compress(body, 1), headers | {"Content-Encoding": "gzip"}
        calls = [asyncio.create_task(service.call("POST", "/api/generate", body, headers=headers)) for _ in range(2)]
        while (await service.call("GET", "/api/v1/prompts", headers=caller))[1]["total"] < (2 if named else 3):
            pass
        await until_held(service, 0)
        assert not any(call.done() for call in calls)
        stalled.release()
        assert {status for status, _ in await asyncio.gather(*calls)} == {200}


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/api/generate", b"x" * 600_000, {}, 400),
        ("/api/v1/prompt", b"x" * 600_000, {}, 400),
        ("/api/generate", gzip.compress(b"x" * 900_000), {"Content-Encoding": "gzip"}, 400),
        ("/api/generate", gzip.compress(b"x" * 2_000_000), {"Content-Encoding": "gzip"}, 413),
        ("/api/generate", b"x" * 600_000, {"Content-Encoding": "gzip"}, 400),
        ("/api/v1/prompt", json.dumps({"prompt": "x" * 600_000}).encode(), {"Content-Encoding": "br"}, 415),
        ("/api/v1/prompt", json.dumps({"prompt": "x" * 600_000}).encode(), {}, 202),
        ("/api/show", json.dumps({"model": "llama3.2", "padding": "x" * 600_000}).encode(), {}, 200),
    ],
    ids=["no JSON", "no JSON here", "unpacked", "bursts", "not packed", "unknown", "taken", "passed on"],
)
async def test_nothing_is_held_for_who_was_answered(
    service: RunningService, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    caller = await headers_of(service)
    for _ in range(6):
        async with service.session.post(path, data=body, headers=caller | headers) as response:
            assert response.status == status, await response.text()
            await response.read()
        assert service.app[BODY_ROOM].held == 0


async def test_who_leaves_while_it_sends_is_counted_no_longer(service: RunningService) -> None:
    caller = await headers_of(service)
    async with AsyncExitStack() as opened:
        unfinished = Unfinished(service, opened)
        await unfinished.send(caller)
        await unfinished.send(caller, is_chunked=True)
        unfinished.writers[0].close()
        unfinished.writers[1].transport.abort()
        await until_held(service, 0)


async def test_a_body_that_hardly_comes_is_given_up(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.http.receiving._GRACE_SECONDS", 0.05)
    monkeypatch.setattr("service.api.http.receiving._SHORT_GRACE_SECONDS", 0.05)
    async with connected(service) as (reader, writer):
        writer.write(head(await headers_of(service), path="/v1/completions") + b"x" * 100)
        status, _, answer = await reply_of(reader)
        assert (status, set(json.loads(answer))) == (408, {"error"})
        assert service.app[BODY_ROOM].held == 0
        # The rest is not waited for without end either.
        assert await reader.read() == b""


async def test_sessions_of_other_programs_are_served_meanwhile(service: RunningService) -> None:
    """With two owners the room is full; what is small still passes."""
    attackers = [await headers_of(service) for _ in range(2)]
    async with AsyncExitStack() as opened:
        unfinished = Unfinished(service, opened)
        for caller in attackers:
            for _ in range(2):
                await unfinished.send(caller)
        victim = await headers_of(service)
        async with aiohttp.ClientSession(service.url, headers=victim) as session:
            async with session.post("/api/v1/prompt", json={"prompt": "x" * 60_000}) as response:
                assert response.status == 202
            async with session.get("/api/v1/prompts") as response:
                assert response.status == 200
