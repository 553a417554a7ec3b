"""Bodies that are small to send and burst when they are unpacked; and those that are packed as nobody here unpacks."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from aiohttp.compression_utils import ZSTDDecompressor

from tests.dropin.test_wire import connected, reply_of
from tests.support.access import ADMIN, DOORS, headers_of, service_with_keys
from tests.support.process_figures import processor_seconds, resident_bytes
from tests.support.processes import Service, running_service
from tests.support.raw_server import Exchange, raw_server, whole
from tests.support.running import RunningService

if sys.version_info >= (3, 14):
    from compression.zstd import compress as zstd
else:
    from backports.zstd import compress as zstd

pytestmark = pytest.mark.asyncio(loop_scope="module")

_FRAME = zstd(bytes(64 << 20))
FRAMES = (1 << 20) // len(_FRAME)
BOMB = _FRAME * FRAMES
"""1 MiB that unpacks to more than 8 GiB."""
ATTACKS = 8
MOST_BYTES = 60 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keyed() -> AsyncIterator[RunningService]:
    async with service_with_keys() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def process(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    settings = {"CORRAL_AUTH__REQUIRED": "true", "DEMO_ADMIN_KEY": ADMIN["Authorization"].removeprefix("Bearer ")}
    async with running_service(tmp_path_factory.mktemp("packed"), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def price_of_a_part() -> float:
    """The processor time that it takes to unpack a quarter of one bomb, as aiohttp does it."""
    own, begun = os.getpid(), processor_seconds(os.getpid())
    unpacking = ZSTDDecompressor()
    piece = unpacking.decompress_sync(_FRAME * (FRAMES // 4), 1 << 18)
    while piece or unpacking.data_available:
        piece = unpacking.decompress_sync(b"", 1 << 18)
    return processor_seconds(own) - begun


async def ask(url: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    async with aiohttp.ClientSession(url) as session, session.post(path, data=body, headers=headers) as response:
        return response.status, await response.read()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/chat", {}, 401),
        ("/nowhere", {}, 404),
        ("/health", {}, 405),
        ("/api/chat", ADMIN, 413),
        ("/api/v1/prompt", ADMIN, 413),
    ],
)
async def test_what_bursts_costs_no_more_than_it_is(
    process: Service, price_of_a_part: float, path: str, headers: dict[str, str], status: int
) -> None:
    """All attacks together cost less than to unpack a part of one of them would."""
    pid = process.process.pid
    assert (await ask(process.url, "/api/chat", b"{}", {}))[0] == 401
    memory, begun = resident_bytes(pid), processor_seconds(pid)
    packed = {"Content-Encoding": "zstd", **headers}
    async with aiohttp.ClientSession(process.url) as victim:
        attacks = [asyncio.create_task(ask(process.url, path, BOMB, packed)) for _ in range(ATTACKS)]
        async with victim.get("/health") as response:
            assert response.status in (200, 503)
        assert [found for found, _ in await asyncio.gather(*attacks)] == [status] * ATTACKS
    spent = processor_seconds(pid) - begun
    assert spent < price_of_a_part
    assert resident_bytes(pid) < memory + MOST_BYTES


async def test_a_victim_is_answered_while_a_bomb_is_under_way(process: Service) -> None:
    """The bomb has come but for its last byte, so that all of it that could be unpacked would be by now."""
    for shown in ("", f"Authorization: {ADMIN['Authorization']}\r\n"):
        _, _, port = process.url.rpartition(":")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        head = f"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Encoding: zstd\r\n{shown}"
        writer.write(f"{head}Content-Length: {len(BOMB)}\r\n\r\n".encode() + BOMB[:-1])
        await writer.drain()
        assert (await ask(process.url, "/api/v1/prompt", b"{}", ADMIN))[0] == 400
        writer.write(BOMB[-1:])
        assert (await reply_of(reader))[0] == (413 if shown else 401)
        writer.close()


@pytest.mark.parametrize("header", ["br", "compress", "gzip, gzip", "aes128gcm"])
async def test_what_nobody_unpacks_is_refused_in_the_dialects_shape(keyed: RunningService, header: str) -> None:
    for path, body, place in DOORS:
        data = json.dumps(body).encode()
        headers = {**ADMIN, "Content-Encoding": header}
        async with keyed.session.post(path, data=data, headers=headers) as response:
            answer = await response.json(content_type=None)
            assert response.status == 415, answer
            assert response.headers["Accept-Encoding"] == "gzip, deflate, zstd"
        for name in place:
            answer = answer[name]
        assert header in answer


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
async def test_what_is_not_what_it_says_is_refused_in_the_dialects_shape(keyed: RunningService, coding: str) -> None:
    for path, body, place in DOORS:
        data = json.dumps(body).encode()
        headers = {**ADMIN, "Content-Encoding": coding}
        async with keyed.session.post(path, data=data, headers=headers) as response:
            answer = await response.json(content_type=None)
            assert response.status == 400, answer
        for name in place:
            answer = answer[name]
        assert coding in answer


@pytest.mark.parametrize("header", ["identity", "x-gzip", "GZIP", "identity, gzip"])
async def test_other_words_for_what_is_taken_are_taken(keyed: RunningService, header: str) -> None:
    caller = await headers_of(keyed)
    data = json.dumps({"prompt": "x"}).encode()
    packed = data if header == "identity" else gzip.compress(data)
    headers = {**caller, "Content-Encoding": header}
    async with keyed.session.post("/api/v1/prompt", data=packed, headers=headers) as response:
        assert response.status == 202, await response.text()


async def test_what_an_admin_passes_on_goes_as_it_came_and_says_how_it_is_packed() -> None:
    """Nothing of it is read here, so that nothing is unpacked; the backend is told what it is sent."""
    packed = gzip.compress(b'{"model": "llama3.2"}')

    passed_on: list[bytes] = []

    async def answer(exchange: Exchange) -> None:
        if "Transfer-Encoding" in exchange.headers:
            passed_on.append(await exchange.reader.readuntil(b"\r\n0\r\n\r\n"))
        await exchange.send(whole(b'{"version": "0.24.0", "models": [], "status": "success"}'))

    async with raw_server(answer) as backend:
        options = {"backends": [{"name": "raw", "url": backend.url, "concurrency": 1}]}
        async with service_with_keys(options) as service:
            async with connected(service) as (reader, writer):
                shown = f"Authorization: {ADMIN['Authorization']}\r\nX-Backend: raw\r\n"
                head = f"POST /api/pull HTTP/1.1\r\nHost: x\r\n{shown}Content-Encoding: gzip\r\n"
                writer.write(f"{head}Content-Length: {len(packed)}\r\n\r\n".encode() + packed)
                assert (await reply_of(reader))[0] == 200
            # What we read ourselves is sent plain.
            data = gzip.compress(b'{"model": "llama3.2"}')
            headers = {**ADMIN, "Content-Encoding": "gzip"}
            async with service.session.post("/api/show", data=data, headers=headers) as response:
                assert response.status == 200
    (pulled,) = [one for one in backend.requests if one.path == "/api/pull"]
    assert pulled.headers["Content-Encoding"] == "gzip"
    assert passed_on == [b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed)]
    shown_to = next(one for one in backend.requests if one.path == "/api/show")
    assert "Content-Encoding" not in shown_to.headers
    assert shown_to.body == b'{"model": "llama3.2"}'
