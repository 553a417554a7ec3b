"""Replies of a backend that are small to send and large to hold, or that never end: each is bounded, and costs nobody
else their answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.api.dropin.passing import MOST_BYTES
from service.app import REPLIES
from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedSettings
from tests.support.backends import until_answering
from tests.support.process_figures import MIB, MemoryPeak
from tests.support.processes import PATIENCE_SECONDS, Service, running_service, simulated_process
from tests.support.raw_server import END, Exchange, chunk, raw_server, whole
from tests.support.running import MODELS, RunningService, service_in_process

NESTED = '{"models":[…[],…[]]}'
MANY = 6_000_000
"""Of empty arrays: 18 MB, which a parser makes 400 MB of."""
TEXTS, DIMENSIONS = 2_048, 4_096
VECTOR = "[" + ",".join(["-0.0123456"] * DIMENSIONS) + "]"
VECTORS = f'{{"model":"embedder","embeddings":[…{VECTOR},…{VECTOR}],"prompt_eval_count":7}}'
EMBED = {"model": "embedder", "input": ["text"] * TEXTS}


class Box:
    """The service as a process of its own, and how its simulated Ollama is told what to do."""

    def __init__(self, service: Service, ollama: str, session: aiohttp.ClientSession) -> None:
        self.pid = service.process.pid
        self.session = session
        self._ollama = ollama

    async def arm(self, endpoint: str, body: str, size: int, **fields: Any) -> None:
        fault = {"kind": "flood", "endpoint": endpoint, "body": body, "size": size, **fields}
        async with self.session.post(f"{self._ollama}/simulated/faults", json=fault) as reply:
            assert reply.status == 200

    async def call(self, path: str, body: Any, **headers: str) -> tuple[int, bytes]:
        async with self.session.post(path, json=body, headers=headers) as reply:
            return reply.status, await reply.read()

    async def health(self) -> dict[str, Any]:
        async with self.session.get("/health") as reply:
            return dict((await reply.json())["backends"][0])


@asynccontextmanager
async def box(folder: Path, **settings: str) -> AsyncIterator[Box]:
    async with (
        simulated_process(folder) as ollama,
        running_service(folder, OLLAMA_URL=ollama, CORRAL_HEALTH__PROBE_INTERVAL_SECONDS="0.05", **settings) as service,
        aiohttp.ClientSession(service.url) as session,
    ):
        box = Box(service, ollama, session)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await box.health())["status"] != "ok":
                pass
        yield box


@pytest.mark.parametrize("endpoint", ["/api/tags", "/api/version"])
async def test_an_answer_that_holds_too_much_is_trouble_that_is_told(tmp_path: Path, endpoint: str) -> None:
    async with box(tmp_path) as it:
        peak = MemoryPeak(it.pid)
        await it.arm(endpoint, NESTED, MANY // 2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (told := await it.health())["status"] == "ok":
                pass
        assert "more than 100,000 arrays and objects" in told["error"]
        assert peak.grown_bytes < 100 * MIB


async def test_an_answer_that_is_too_long_is_trouble_that_is_told(tmp_path: Path) -> None:
    async with box(tmp_path) as it:
        peak = MemoryPeak(it.pid)
        await it.arm("/api/tags", NESTED, 10 * MANY)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (told := await it.health())["status"] == "ok":
                pass
        assert f"more than {16 * MIB} bytes" in told["error"]
        assert peak.grown_bytes < 100 * MIB


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}], "stream": False}),
        ("/v1/chat/completions", {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}]}),
    ],
)
async def test_a_whole_reply_that_holds_too_much_fails_at_once_and_others_are_answered(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with box(tmp_path) as it:
        await it.arm(path, NESTED, 5 * MANY)
        peak = MemoryPeak(it.pid)
        attacks = [asyncio.create_task(it.call(path, body)) for _ in range(2)]
        later = {"prompt": "Why?", "not_before": time.time() + 86_400}
        others = asyncio.create_task(it.call("/api/v1/prompt", later))
        done, _ = await asyncio.wait([*attacks, others], return_when=asyncio.FIRST_COMPLETED)
        assert others in done
        assert others.result()[0] == 202
        for status, refusal in await asyncio.gather(*attacks):
            assert status == 400
            assert b"output.max_bytes" in refusal
        assert peak.grown_bytes < 150 * MIB
        async with it.session.get("/api/v1/prompts") as told:
            listed = (await told.json())["prompts"]
        assert [job["attempt"] for job in listed if job["status"] != "queued"] == [1, 1]


async def test_a_whole_reply_that_is_not_too_long_may_still_hold_too_much() -> None:
    async with service_in_process() as service:
        service.ollama.arm(Fault(kind=FaultKind.FLOOD, endpoint="/api/generate", body=NESTED, size=MANY // 10))
        body = {"model": "llama3.2", "prompt": "Why?", "stream": False}
        status, answer = await service.call("POST", "/api/generate", body)
        assert (status, answer) == (400, {"error": "the reply holds more than 100,000 arrays and objects"})


async def test_a_line_that_holds_too_much_fails_at_once() -> None:
    async with service_in_process() as service:
        line = '{"response":"","tool_calls":[…[],…[]]}\n'
        service.ollama.arm(Fault(kind=FaultKind.FLOOD, endpoint="/api/generate", body=line, size=200_000))
        job_id = await service.submit()
        job = await service.until(job_id, "failed")
        assert (job["attempt"], job["error"]["code"]) == (1, "output_too_large")


async def test_a_refusal_that_never_ends_fails_its_job_and_no_other() -> None:
    async with service_in_process() as service:
        fault = service.ollama.arm(
            Fault(kind=FaultKind.FLOOD, endpoint="/api/chat", body='{"error":"…a…"}', size=2 * MIB, status=400)
        )
        body = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}]}
        async with service.session.post("/api/chat", json=body) as reply:
            assert reply.status >= 400
            assert "a reply of more than 1048576 bytes" in (await reply.json())["error"]
            job = await service.until(reply.headers["X-Job-Id"], "failed")
        assert job["attempt"] == 1
        fault.remove()
        assert (await service.call("POST", "/api/chat", {**body, "stream": False}))[0] == 200


@pytest.mark.parametrize("told_length", [True, False])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/tags"), ("POST", "/api/show"), ("GET", "/api/ps"), ("GET", "/v1/models")]
)
async def test_a_relayed_list_has_a_bound_and_is_never_held(method: str, path: str, told_length: bool) -> None:
    is_endless = False

    async def answer(exchange: Exchange) -> None:
        if exchange.path != path or not is_endless:
            lists: dict[str, Any] = {"version": "0.40.0", "models": [{"name": "llama3.2:latest"}]}
            await exchange.send(whole(json.dumps(lists).encode()))
            return
        length = f"Content-Length: {MOST_BYTES + 1}" if told_length else "Transfer-Encoding: chunked"
        await exchange.send(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{length}\r\n\r\n".encode())
        piece = b" " * MIB
        for _ in range(MOST_BYTES // MIB + 1):
            await exchange.send(piece if told_length else chunk(piece))
        await exchange.send(b"" if told_length else END)

    async with raw_server(answer) as ollama:
        options = {"backends": [{"name": "raw", "url": ollama.url}], "health.probe_interval_seconds": 3600}
        async with service_in_process(options) as service:
            await until_answering(service, 1)
            is_endless = True
            async with service.session.request(method, path, json={"model": "llama3.2"}) as reply:
                if told_length:
                    # Lists of models fall back on what is known; nothing of the reply that is too long was sent.
                    assert reply.status == (503 if path == "/api/show" else 200)
                    assert len(await reply.read()) < 1_000
                    return
                assert await _is_cut(reply.content, MOST_BYTES)


async def test_embeddings_of_two_thousand_texts_pass_and_are_kept_for_a_repeated_request(tmp_path: Path) -> None:
    expected = sha256(VECTORS.split("…")[0].encode())
    for _ in range(TEXTS - 1):
        expected.update(VECTORS.split("…")[1].encode())
    expected.update(VECTORS.split("…")[2].encode())
    size = TEXTS * (len(VECTOR) + 1)
    async with box(tmp_path) as it:
        await it.arm("/api/embed", VECTORS, TEXTS - 1)
        for key in ({}, {"Idempotency-Key": "once"}, {"Idempotency-Key": "once"}):
            peak = MemoryPeak(it.pid)
            digest = sha256()
            async with it.session.post("/api/embed", json=EMBED, headers=key) as reply:
                assert reply.status == 200
                async for piece in reply.content.iter_any():
                    digest.update(piece)
                job_id = reply.headers["X-Job-Id"]
            assert digest.digest() == expected.digest()
            assert peak.grown_bytes < size + 100 * MIB
            async with it.session.get(f"/api/v1/prompt/{job_id}/status?wait=60&status=processing") as told:
                assert (await told.json())["status"] == "completed"
        # The second was read from the store, and nothing of its size was ever held.
        assert reply.headers["Idempotent-Replayed"] == "true"
        assert peak.grown_bytes < 60 * MIB


EMBEDDER = SimulatedSettings(models=(*MODELS, SimulatedModel("embedder", ("embedding",))), parallel=8)
SOME = f'{{"model":"embedder","embeddings":[…{VECTOR},…{VECTOR}]}}'


async def test_replies_that_are_larger_than_all_may_be_take_turns_and_leave_nothing() -> None:
    async with service_in_process({"server.max_replies_bytes": MIB}, EMBEDDER, seats=5) as service:
        account = service.app[REPLIES]
        service.ollama.arm(Fault(kind=FaultKind.FLOOD, endpoint="/api/embed", body=SOME, size=99))
        size = len(SOME) - 2 + 98 * (len(VECTOR) + 1)
        keys = [{}, {"Idempotency-Key": "once"}, {"X-On-Disconnect": "finish"}]
        tasks = [asyncio.create_task(_received(service, EMBED, keys[number % 3])) for number in range(9)]
        assert [(status, received) for status, received in await asyncio.gather(*tasks)] == [(200, size)] * 9
        await _until_nothing_is_held(service)
        assert account.waiting == 0


async def test_callers_that_leave_take_their_turns_along() -> None:
    async with service_in_process({"server.max_replies_bytes": MIB}, EMBEDDER, seats=5) as service:
        service.ollama.arm(Fault(kind=FaultKind.FLOOD, endpoint="/api/embed", body=SOME, size=2_000))
        for headers in ({}, {"Idempotency-Key": "a"}, {"X-On-Disconnect": "finish"}):
            tasks = [asyncio.create_task(_received(service, EMBED, headers)) for _ in range(5)]
            async with asyncio.timeout(PATIENCE_SECONDS):
                while service.app[REPLIES].held_bytes < MIB:
                    await service.call("GET", "/api/version")
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await _until_nothing_is_held(service)


async def test_attempts_that_fail_leave_nothing() -> None:
    options = {"server.max_replies_bytes": MIB, "output.max_bytes": 200_000, "retry.max_retries": 0}
    async with service_in_process(options, EMBEDDER, seats=5) as service:
        service.ollama.arm(Fault(kind=FaultKind.FLOOD, endpoint="/api/embed", body=SOME, size=2_000))
        tasks = [asyncio.create_task(_received(service, EMBED, {})) for _ in range(6)]
        assert {status for status, _ in await asyncio.gather(*tasks)} == {400}
        await _until_nothing_is_held(service)


async def _is_cut(content: aiohttp.StreamReader, most: int) -> bool:
    """Whether a body breaks off, and not later than it may."""
    received = 0
    try:
        async for piece in content.iter_any():
            received += len(piece)
    except aiohttp.ClientPayloadError:
        return received <= most
    return False


async def _received(service: RunningService, body: Any, headers: dict[str, str]) -> tuple[int, int]:
    async with service.session.post("/api/embed", json=body, headers=headers) as reply:
        return reply.status, len(await reply.read())


async def _until_nothing_is_held(service: RunningService) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while service.app[REPLIES].held_bytes or service.jobs.ledger.running:
            await service.call("GET", "/api/version")


async def test_a_stream_that_is_taken_as_it_comes_waits_for_no_large_reply() -> None:
    settings = replace(EMBEDDER, tokens=20_000)
    async with service_in_process({"server.max_replies_bytes": MIB}, settings, seats=5) as service:
        service.ollama.arm(Fault(kind=FaultKind.FLOOD, endpoint="/api/embed", body=SOME, size=2_000))
        async with service.session.post("/api/embed", json=EMBED) as untaken:
            # Its reply is more than all may hold together, and nothing of it is read.
            assert untaken.status == 200
            body = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}], "stream": True}
            async with service.session.post("/api/chat", json=body) as reply:
                lines = (await reply.text()).splitlines()
            assert len(lines) == 20_001
            assert json.loads(lines[-1])["done"] is True
            assert service.app[REPLIES].held_bytes > MIB
            untaken.close()
        await _until_nothing_is_held(service)
