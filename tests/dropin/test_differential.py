"""A client that is pointed at the service instead of at Ollama sees the same: status, content type and body, ids and
times aside, in every case of the recordings and of the wire contract's error catalogue.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.simulated import RECORDED_MODELS, Fault, FaultKind, SimulatedModel, SimulatedSettings, busy
from tests.support.backends import until_answering
from tests.support.drop_in import EMBEDDING, STREAMING, WHOLE, Seen, frame_of, seen, whole_part
from tests.support.drop_in_bodies import BODIES
from tests.support.running import RunningService, service_in_process
from tests.support.simulation import CATALOGUE

RECORDINGS = Path(__file__).parent.parent / "recordings"
CASES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RECORDINGS.glob("*.json"))}

# The recorded models never stop by themselves; requests without a limit of their own are held to num_predict 32.
SETTINGS = SimulatedSettings(
    models=(
        *RECORDED_MODELS,
        SimulatedModel("thinker:7b", capabilities=("completion", "thinking", "tools")),
        SimulatedModel("painter", capabilities=("image",)),
    ),
    tokens=None,
    parallel=4,
)
ADMIN_KEY = "sk-admin-for-the-differential-test"
OPTIONS = {
    "queue.hold_busy": False,
    "retry.initial_seconds": 0.001,
    "retry.cap_seconds": 0.001,
    "retry.max_retries": 1,
    "breaker.failure_threshold": 1_000_000,
    "auth.demo_admin_key": ADMIN_KEY,
}


@asynccontextmanager
async def both() -> AsyncIterator[tuple[RunningService, aiohttp.ClientSession]]:
    """The service, and a session that goes past it to its simulated Ollama."""
    async with (
        service_in_process(OPTIONS, SETTINGS) as service,
        aiohttp.ClientSession(service.ollama.url) as direct,
    ):
        # What is loaded shows in the replies.
        for model in ("tiny1", "tiny2", "embed", "thinker:7b"):
            endpoint = "/api/embed" if model == "embed" else "/api/generate"
            await seen(direct, "POST", endpoint, {"model": model})
        await until_answering(service, 1)
        yield service, direct


async def _compare(
    service: RunningService, direct: aiohttp.ClientSession, method: str, path: str, body: Any, headers: dict[str, str]
) -> dict[str, Any]:
    """What differs, with both sides; {} when nothing does."""
    if path.startswith("/api/chat") and not (isinstance(body, dict) and "stream" in body):
        headers = {**headers, "Accept": "application/x-ndjson"}
    expected = await seen(direct, method, path, body, headers)
    given = await seen(service.session, method, path, body, {**headers, "Authorization": f"Bearer {ADMIN_KEY}"})
    return {} if given.comparable == expected.comparable else {"ollama": expected[:4], "service": given[:4]}


def _recorded(name: str) -> tuple[str, str, Any, dict[str, str]]:
    request = CASES[name]["request"]
    body = request["body"]
    return request["method"], request["path"], body.encode() if isinstance(body, str) else body, request["headers"]


async def test_every_recorded_request_is_answered_alike() -> None:
    different = {}
    async with both() as (service, direct):
        for name in (name for name in CASES if not name.startswith("fault-")):
            if name in ("delete", "generate-unload"):
                before = "copy" if name == "delete" else "generate-load"
                method, path, body, headers = _recorded(before)
                await seen(direct, method, path, body, headers)
            difference = await _compare(service, direct, *_recorded(name))
            if name == "delete":
                # The model was deleted by the first of the two.
                assert difference["ollama"][0] == 200
                await seen(direct, *_recorded("copy"))
                given = await seen(service.session, *_recorded(name)[:3], {"Authorization": f"Bearer {ADMIN_KEY}"})
                difference = {} if given[:4] == difference["ollama"] else difference
            if difference:
                different[name] = difference
    assert different == {}


FAULT_OF = {
    "queue full (OLLAMA_MAX_QUEUE=1)": busy(),
    "runner killed mid-stream": Fault(kind=FaultKind.RUNNER_KILLED, after_tokens=6),
    "runner killed before the reply": Fault(kind=FaultKind.RUNNER_KILLED, after_tokens=6),
    "server killed mid-stream": Fault(kind=FaultKind.HANG_UP, after_tokens=6),
}


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("fault-")])
async def test_every_recorded_fault_is_passed_on(name: str) -> None:
    fault = FAULT_OF[CASES[name]["event"]]
    async with both() as (service, direct):
        service.ollama.arm(fault)
        method, path, body, headers = _recorded(name)
        expected = await seen(direct, method, path, body, {**headers, "Accept": "application/x-ndjson"})
        given = await seen(service.session, method, path, body, {**headers, "Accept": "application/x-ndjson"})
        if expected.status == 200:
            _assert_cut(path, fault, expected, given)
        else:
            assert given.comparable == expected.comparable


@pytest.mark.parametrize("path", BODIES)
async def test_whatever_a_body_says_the_answer_is_ollamas(path: str) -> None:
    different = {}
    async with both() as (service, direct):
        for body in BODIES[path]:
            if difference := await _compare(service, direct, "POST", path, body, {}):
                different[repr(body)[:200]] = difference
    assert different == {}


@pytest.mark.parametrize("path", [*STREAMING, *EMBEDDING])
async def test_every_error_of_the_catalogue_comes_through_as_it_is(path: str) -> None:
    different = {}
    async with both() as (service, direct):
        for status, message in CATALOGUE:
            for body in (WHOLE[path], STREAMING.get(path, WHOLE[path])):
                fault = service.ollama.arm(Fault(kind=FaultKind.ERROR, status=status, message=message, endpoint=path))
                if difference := await _compare(service, direct, "POST", path, body, {}):
                    different[f"{status} {message[:60]}"] = difference
                fault.remove()
    assert different == {}


@pytest.mark.parametrize("path", [*STREAMING, *EMBEDDING])
async def test_a_busy_backend_and_a_dead_runner_are_passed_on(path: str) -> None:
    different = {}
    async with both() as (service, direct):
        for fault in (busy(), Fault(kind=FaultKind.RUNNER_KILLED), Fault(kind=FaultKind.LONG_LINE, after_tokens=2)):
            armed = service.ollama.arm(fault)
            if difference := await _compare(service, direct, "POST", path, WHOLE[path], {}):
                different[str(fault.kind)] = difference
            armed.remove()
    assert different == {}


CUTS = (
    Fault(kind=FaultKind.RUNNER_KILLED, after_tokens=6),
    Fault(kind=FaultKind.ERROR_LINE, after_tokens=6, message="llama-server error: CUDA error"),
    Fault(kind=FaultKind.NO_DONE, after_tokens=6),
    Fault(kind=FaultKind.RESET, after_tokens=6),
    Fault(kind=FaultKind.HANG_UP, after_tokens=6),
)


@pytest.mark.parametrize("path", STREAMING)
async def test_a_stream_that_is_cut_is_equal_up_to_the_cut_and_then_says_so(path: str) -> None:
    async with both() as (service, direct):
        for fault in CUTS:
            # The service looks at once whether the server is still there, and that is not to be cut.
            armed = service.ollama.arm(replace(fault, endpoint=path))
            expected = await seen(direct, "POST", path, STREAMING[path])
            given = await seen(service.session, "POST", path, STREAMING[path])
            armed.remove()
            assert (given.status, given.content_type) == (expected.status, expected.content_type)
            _assert_cut(path, fault, expected, given)


def _assert_cut(path: str, fault: Fault, expected: Seen, given: Seen) -> None:
    # A broken connection on lines, an error and a proper end on events.
    assert given.is_whole is path.startswith("/v1/")
    common = whole_part(path, expected.body)
    assert given.body.startswith(common)
    rest = given.body[len(common) :]
    has_ollama_told = path.startswith("/api/") and fault.kind in (FaultKind.RUNNER_KILLED, FaultKind.ERROR_LINE)
    if has_ollama_told:
        assert rest == b""
        assert json.loads(common.splitlines()[-1])["error"] == fault.reply_message
    else:
        assert frame_of(path, rest)


@pytest.mark.parametrize("path", STREAMING)
async def test_bytes_that_arrive_in_any_pieces_arrive_alike(path: str) -> None:
    different = {}
    async with both() as (service, direct):
        for fault in (
            Fault(kind=FaultKind.SPLIT, size=7),
            Fault(kind=FaultKind.MERGE, size=5),
            Fault(kind=FaultKind.LONG_LINE, after_tokens=3),
        ):
            armed = service.ollama.arm(fault)
            if difference := await _compare(service, direct, "POST", path, STREAMING[path], {}):
                different[str(fault.kind)] = difference
            armed.remove()
    assert different == {}


@pytest.mark.parametrize("tokens", [0, 6])
@pytest.mark.parametrize("path", STREAMING)
async def test_half_a_reply_that_ollama_takes_for_whole_is_asked_for_once_more_and_then_an_error(
    path: str, tokens: int
) -> None:
    async with service_in_process(OPTIONS, SETTINGS) as service:
        service.ollama.arm(Fault(kind=FaultKind.NO_DONE, endpoint=path, after_tokens=tokens))
        given = await seen(service.session, "POST", path, WHOLE[path])
        assert (given.status, given.headers["x-should-retry"]) == (500, "false")
        error = json.loads(given.body)["error"]
        assert "before it was complete" in (error if isinstance(error, str) else error["message"])
        job = await service.until(given.headers["X-Job-Id"], "failed")
        assert (job["attempt"], job["error"]["code"]) == (2, "truncated")


ROUTES = [
    ("GET", "/"),
    ("HEAD", "/"),
    ("GET", "/api/version"),
    ("HEAD", "/api/version"),
    ("GET", "/api/tags"),
    ("HEAD", "/api/tags"),
    ("GET", "/api/ps"),
    ("HEAD", "/api/ps"),
    ("GET", "/v1/models"),
    ("HEAD", "/v1/models"),
    ("GET", "/v1/models/TINY1"),
    ("GET", "/v1/models/nosuch"),
    ("GET", "/api/nosuch"),
    ("POST", "/api/nosuch"),
    ("GET", "/v1/nosuch"),
    ("POST", "/v1/messages/count_tokens"),
    ("GET", "/api/chat"),
    ("DELETE", "/api/chat"),
    ("GET", "/v1/chat/completions"),
    ("PUT", "/v1/messages"),
    ("POST", "/api/tags"),
    ("GET", "/api/delete"),
    ("GET", "/api/tags/"),
    ("POST", "/api/chat/"),
    ("POST", "/api/generate/?x=y"),
    ("POST", "/v1/chat/completions/"),
    ("POST", "/v1/messages/"),
    ("HEAD", f"/api/blobs/sha256:{'0' * 64}"),
    ("HEAD", "/api/blobs/nonsense"),
]


async def test_routes_methods_and_slashes_are_answered_as_ollama_answers_them() -> None:
    different = {}
    async with both() as (service, direct):
        for method, path in ROUTES:
            if difference := await _compare(service, direct, method, path, None, {"Content-Type": "application/json"}):
                different[f"{method} {path}"] = difference
        redirected = await seen(service.session, "POST", "/api/generate/")
        assert redirected.headers["Location"] == "/api/generate"
    assert different == {}
