"""HTTP as it is spoken by clients that are old, sparing, slow or rude."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.simulated import Fault, FaultKind, SimulatedSettings
from tests.support.running import MODELS, PATIENCE_SECONDS, RunningService, service_in_process

if sys.version_info >= (3, 14):
    from compression.zstd import compress as zstd
else:
    from backports.zstd import compress as zstd

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}], "stream": True}


@asynccontextmanager
async def connected(service: RunningService) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url.rsplit(":", 1)[1]), limit=1 << 26)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield reader, writer
    finally:
        writer.close()


def post(path: str, body: Any, *, version: str = "1.1", headers: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    return head.encode() + data


async def reply_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The next reply: its status, headers in lower case, and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
    return int(head[0].split(" ")[1]), headers, body


def is_whole(body: bytes) -> bool:
    lines = [json.loads(line) for line in body.splitlines()]
    return len(lines) == 21 and lines[-1]["done"] is True


async def test_a_client_of_http_1_0_gets_its_stream_without_chunks() -> None:
    async with service_in_process() as service, connected(service) as (reader, writer):
        writer.write(post("/api/chat", CHAT, version="1.0"))
        status, headers, body = await reply_of(reader)
        assert status == 200
        assert "transfer-encoding" not in headers
        assert is_whole(body)


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    async with service_in_process() as service, connected(service) as (reader, writer):
        head, _, body = post("/api/chat", CHAT, headers="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        status, _, answer = await reply_of(reader)
        assert status == 200
        assert is_whole(answer)


async def test_requests_sent_all_at_once_are_answered_in_their_order() -> None:
    async with service_in_process() as service, connected(service) as (reader, writer):
        whole = {**CHAT, "stream": False}
        writer.write(post("/api/chat", CHAT) + post("/v1/chat/completions", whole) + post("/api/generate", {}))
        first, second, third = [await reply_of(reader) for _ in range(3)]
        assert is_whole(first[2])
        assert json.loads(second[2])["object"] == "chat.completion"
        assert (third[0], json.loads(third[2])) == (404, {"error": "model '' not found"})


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd)])
async def test_a_compressed_body_is_read_and_sent_on_plain(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    async with service_in_process() as service, connected(service) as (reader, writer):
        for body in (CHAT, {**CHAT, "model": 5}):
            packed = pack(json.dumps(body).encode())
            writer.write(post("/api/chat", packed, headers=f"Content-Encoding: {encoding}\r\n"))
            status, _, answer = await reply_of(reader)
            assert status == (200 if body is CHAT else 400)
            assert status != 200 or is_whole(answer)
            assert b"invalid character" not in answer


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/api/chat", None), ("/v1/chat/completions", "api_error"), ("/v1/messages", "request_too_large")],
)
async def test_a_body_that_is_too_large_is_413_in_the_dialects_shape(path: str, kind: str | None) -> None:
    async with service_in_process({"server.max_body": 2048}) as service:
        for headers in ("", "Transfer-Encoding: chunked\r\n"):
            async with connected(service) as (reader, writer):
                data = json.dumps({**CHAT, "padding": "x" * 4096}).encode()
                if headers:
                    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
                    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
                else:
                    writer.write(post(path, data))
                status, _, body = await reply_of(reader)
                error = json.loads(body)["error"]
                assert status == 413
                assert "2048 bytes" in (error if kind is None else error["message"])
                assert kind is None or error["type"] == kind


async def test_a_reader_that_takes_nothing_holds_up_nobody() -> None:
    settings = SimulatedSettings(models=MODELS, parallel=8, tokens=20)
    async with service_in_process(settings=settings, seats=1) as service, connected(service) as (reader, writer):
        service.ollama.arm(Fault(kind=FaultKind.LONG_LINE, size=8_000_000, times=1, endpoint="/api/chat"))
        writer.write(post("/api/chat", CHAT))
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        # Its job needs no seat any more, so that the only one is free.
        status, answer = await service.call("POST", "/api/chat", {**CHAT, "stream": False})
        assert (status, answer["done"]) == (200, True)
        _, listed = await service.call("GET", "/api/v1/prompts")
        for job in listed["prompts"]:
            await service.until(job["id"], "completed")
        reader._transport.resume_reading()  # type: ignore[attr-defined]


async def test_lines_that_ollama_cuts_end_the_connection_without_the_terminating_chunk() -> None:
    async with service_in_process() as service, connected(service) as (reader, writer):
        service.ollama.arm(Fault(kind=FaultKind.HANG_UP, after_tokens=3, endpoint="/api/chat"))
        writer.write(post("/api/chat", CHAT))
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert rest.rstrip().endswith(b"}")
        assert b'{"error":' in rest
        assert not rest.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
async def test_events_that_ollama_cuts_end_with_our_error_as_http_says_and_the_connection_goes_on(path: str) -> None:
    body = {**CHAT, "prompt": "Why?", "input": "Why?", "max_tokens": 20}
    async with service_in_process() as service, connected(service) as (reader, writer):
        service.ollama.arm(Fault(kind=FaultKind.HANG_UP, after_tokens=3, times=1, endpoint=path))
        writer.write(post(path, body))
        status, headers, answer = await reply_of(reader)
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        *before, error = answer.decode().removesuffix("\n\n").split("\n\n")
        assert before
        assert json.loads(error.rpartition("data: ")[2])["error"]["message"]
        assert not any(end in answer for end in (b"[DONE]", b"response.completed", b"message_stop", b'"stop"'))
        writer.write(post(path, {**body, "stream": False}))
        assert (await reply_of(reader))[0] == 200


async def test_a_stream_keeps_coming_while_it_is_written() -> None:
    async with service_in_process() as service, connected(service) as (reader, writer):
        stall = service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=2, endpoint="/api/chat"))
        writer.write(post("/api/chat", CHAT))
        await reader.readuntil(b"\r\n\r\n")
        seen = b""
        while seen.count(b'"done":false') < 2:
            seen += await reader.readuntil(b"\n")
        assert b'"done":true' not in seen
        stall.release()
        assert (await reader.readuntil(b"0\r\n\r\n")).count(b'"done":true') == 1
