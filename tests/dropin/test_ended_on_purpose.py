"""A stream that Ollama ends on purpose, for a token that repeats itself, ends for its caller as Ollama has ended it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from service.api.context import POOL
from service.simulated import Fault, FaultKind, SimulatedSettings
from tests.dropin.test_differential import OPTIONS, SETTINGS
from tests.dropin.test_signs_of_life import ollamas, reading, stall
from tests.support.drop_in import STREAMING, WHOLE, Seen, alike, seen
from tests.support.running import RunningService, service_in_process
from tests.support.scripted_ollama import MODEL, events, scripted, stream
from tests.support.signs_of_life import OFTEN
from tests.support.simulation import sse_events

STRICT = {**OPTIONS, "retry.max_retries": 5, "breaker.failure_threshold": 1}
"""With these, the first evidence would keep jobs back."""
NATIVE = ("/api/generate", "/api/chat")
NEWER = "0.40.0"


def repeats(service: RunningService, path: str, **fields: Any) -> None:
    service.ollama.arm(Fault(kind=FaultKind.TOKEN_REPEATS, endpoint=path, **{"after_tokens": 3, **fields}))


async def both_see(service: RunningService, path: str, headers: dict[str, str] | None = None) -> tuple[Seen, Seen]:
    """What a caller of Ollama itself is given, and what ours is."""
    async with aiohttp.ClientSession(service.ollama.url) as direct:
        accepting = {"Accept": "application/x-ndjson", **(headers or {})}
        expected = await seen(direct, "POST", path, STREAMING[path], accepting)
        return expected, await seen(service.session, "POST", path, STREAMING[path], accepting)


async def ended(service: RunningService, reply: Seen) -> dict[str, Any]:
    """The failed job of a reply."""
    return await service.until(reply.headers["X-Job-Id"], "failed")


async def output_of(service: RunningService, job_id: str) -> list[tuple[str | None, Any]]:
    async with service.session.get(f"/api/v1/prompt/{job_id}/stream") as response:
        return sse_events(await response.read())


@pytest.mark.parametrize("path", STREAMING)
@pytest.mark.parametrize("fields", [{}, {"after_tokens": 0, "body": "\n"}], ids=["the", "blank from the start"])
async def test_its_caller_sees_what_ollama_sent_and_no_more(path: str, fields: dict[str, Any]) -> None:
    async with service_in_process(STRICT, SETTINGS) as service:
        repeats(service, path, **fields)
        expected, given = await both_see(service, path)
        assert expected.is_whole
        assert given.comparable == expected.comparable
        job = await ended(service, given)
        assert (job["attempt"], job["error"]["code"]) == (1, "repeated")
        assert "again and again" in job["error"]["message"]


@pytest.mark.parametrize("path", STREAMING)
async def test_its_job_is_sent_once_and_is_no_evidence_against_anybody(path: str) -> None:
    async with service_in_process(STRICT, SETTINGS) as service:
        repeats(service, path, times=3)
        for number in range(3):
            body = {**STREAMING[path], "user": str(number)}
            given = await seen(service.session, "POST", path, body, {"Accept": "application/x-ndjson"})
            assert (await ended(service, given))["attempt"] == 1
        assert service.ollama.observations.requests[path] == 3
        [backend] = service.app[POOL]
        assert (backend.breakers.server.faults, backend.breakers.failing) == (0, {})


@pytest.mark.parametrize("fault", [FaultKind.MERGE, FaultKind.SPLIT])
@pytest.mark.parametrize("path", STREAMING)
async def test_however_its_bytes_arrive(path: str, fault: FaultKind) -> None:
    async with service_in_process(STRICT, SETTINGS) as service:
        repeats(service, path)
        service.ollama.arm(Fault(kind=fault, endpoint=path, size=40))
        expected, given = await both_see(service, path)
        assert given.comparable == expected.comparable
        assert (await ended(service, given))["error"]["code"] == "repeated"


@pytest.mark.parametrize("path", STREAMING)
async def test_whoever_asks_again_with_its_key_is_given_the_same(path: str) -> None:
    key = {"Idempotency-Key": "once", "Accept": "application/x-ndjson"}
    async with service_in_process(STRICT, SETTINGS) as service:
        repeats(service, path)
        first = await seen(service.session, "POST", path, STREAMING[path], key)
        await ended(service, first)
        again = await seen(service.session, "POST", path, STREAMING[path], key)
        assert again.comparable == first.comparable
        assert again.is_whole
        assert service.ollama.observations.requests[path] == 1


@pytest.mark.parametrize("path", STREAMING)
async def test_signs_of_life_before_it_change_nothing(path: str) -> None:
    async with service_in_process({**STRICT, **OFTEN}, SETTINGS) as service:
        repeats(service, path)
        expected = await ollamas(service.ollama, path)
        stalled = stall(service, path)
        async with reading(service, path) as caller:
            await caller.sees(signs=2)
            stalled.release()
            await caller.ends()
            assert (alike(caller.body), caller.is_whole) == (expected, True)


async def test_our_own_streams_show_its_text_and_the_failure() -> None:
    async with service_in_process(STRICT, SETTINGS) as service:
        repeats(service, "/api/generate")
        job_id = await service.submit(model="tiny1")
        job = await service.until(job_id, "failed")
        assert (job["attempt"], job["error"]["code"]) == (1, "repeated")
        *shown, (last, done) = await output_of(service, job_id)
        text = "".join(event["data"] for name, event in shown if name == "output")
        assert text.endswith(" the" * 31)
        assert (last, done["status"], done["error"]) == ("done", "failed", job["error"])


@pytest.mark.parametrize("path", STREAMING)
async def test_a_whole_reply_is_asked_for_once_more_and_then_an_error(path: str) -> None:
    async with service_in_process(STRICT, SETTINGS) as service:
        repeats(service, path)
        reply = await seen(service.session, "POST", path, WHOLE[path])
        assert reply.status == 500
        assert (await ended(service, reply))["error"]["code"] == "truncated"
        assert service.ollama.observations.requests[path] == 2


@pytest.mark.parametrize("path", [*NATIVE, "/v1/chat/completions", "/v1/completions"])
async def test_where_ollama_tells_an_error_it_is_one(path: str) -> None:
    newer: SimulatedSettings = replace(SETTINGS, version=NEWER)
    async with service_in_process(STRICT, newer) as service:
        repeats(service, path)
        _, given = await both_see(service, path)
        assert given.is_whole is path.startswith("/v1/")
        assert b"error" in given.body
        code = "output_failed" if path in NATIVE else "truncated"
        assert (await ended(service, given))["error"]["code"] == code


def _line(text: str) -> bytes:
    return json.dumps({"model": MODEL, "created_at": "t", "response": text, "done": False}).encode() + b"\n"


def _event(text: str, model: str = MODEL) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return b"data: " + json.dumps({"model": model, "choices": [choice]}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        pytest.param("/api/generate", stream(_line("Once"), *[_line(" the")] * 30), id="fewer"),
        pytest.param("/api/generate", stream(*[_line(" the the")] * 20), id="merged"),
        pytest.param("/api/generate", stream(*[_line(" the")] * 31, _line(".")), id="something else at the end"),
        pytest.param("/v1/chat/completions", events(*[_event(" the")] * 40, _event("", model="")), id="no model"),
    ],
)
async def test_what_only_looks_like_it_is_told_as_broken(path: str, reply: bytes) -> None:
    async with scripted(reply) as it:
        given = await seen(it.service.session, "POST", path, {**STREAMING[path], "model": MODEL})
        assert b"the reply ended before it was complete" in given.body
        job = await it.service.until(given.headers["X-Job-Id"], "failed")
        assert job["error"]["code"] == "truncated"
