"""The simulated Ollama answers as the real one did: every recorded request, replayed (tests/recordings/README.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.simulated import RECORDED_MODELS, Fault, FaultKind, SimulatedSettings, busy
from tests.support.simulation import json_lines, simulated_ollama, sse_events

RECORDINGS = Path(__file__).parent.parent / "recordings"
CASES = sorted(path.stem for path in RECORDINGS.glob("*.json"))
FAULTS = [name for name in CASES if name.startswith("fault-")]

# The recorded models never stop by themselves; requests without a limit of their own are held to num_predict 32.
SETTINGS = SimulatedSettings(models=RECORDED_MODELS, tokens=None)

_LEFT_OUT = "chunks left out"


def _recording(name: str) -> dict[str, Any]:
    recording: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
    return recording


async def _replay(
    session: aiohttp.ClientSession, request: dict[str, Any]
) -> tuple[aiohttp.ClientResponse, bytes, bool]:
    """The reply, its body as far as it came, and whether it ended as HTTP says it should."""
    body = request["body"]
    data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
    async with session.request(request["method"], request["path"], data=data, headers=request["headers"]) as response:
        received = bytearray()
        try:
            if request["method"] != "HEAD":
                async for piece in response.content.iter_any():
                    received += piece
        except aiohttp.ClientPayloadError:
            return response, bytes(received), False
        return response, bytes(received), True


def _shape(value: Any) -> Any:
    """Fields and the types of their values. Words are words however many, a list is as its first item."""
    match value:
        case dict():
            return {name: _shape(item) for name, item in value.items()}
        case list():
            return [_shape(value[0])] if value else []
        case bool() | None:
            return value
        case int() | float():
            return "number"
        case _:
            return "text"


# Values that are part of the protocol and not of the answer: they have to be the same.
_LITERAL = frozenset(
    ("done", "done_reason", "role", "object", "finish_reason", "type", "error", "model", "stop_reason", "status")
)


def _literals(value: Any) -> Any:
    match value:
        case dict():
            return {name: _literals(item) for name, item in value.items() if name in _LITERAL or _is_nested(item)}
        case list():
            return [_literals(item) for item in value if _is_nested(item)]
        case _:
            return value


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _events(content_type: str, body: bytes) -> list[tuple[str | None, Any]]:
    if content_type.startswith("application/x-ndjson"):
        return [(None, line) for line in json_lines(body)]
    if content_type.startswith("text/event-stream"):
        return sse_events(body)
    if content_type.startswith("application/json") and body:
        return [(None, json.loads(body))]
    return [(None, body.decode())]


def _order(events: list[tuple[str | None, Any]]) -> list[Any]:
    """Each event's name, fields and literal values; the same one again and again counts once."""
    order: list[Any] = []
    for name, data in events:
        seen = (name, _shape(data), _literals(data))
        if not order or order[-1] != seen:
            order.append(seen)
    return order


def _recorded_body(recording: dict[str, Any]) -> bytes:
    chunks = [chunk for chunk in recording["response"]["chunks"] if _LEFT_OUT not in chunk]
    return "".join(chunks).encode()


def _assert_alike(recording: dict[str, Any], response: aiohttp.ClientResponse, body: bytes) -> None:
    recorded = recording["response"]
    assert response.status == recorded["status"]
    headers = dict(response.headers)
    headers.pop("Date")
    lengths = (headers.pop("Content-Length", None), recorded["headers"].pop("Content-Length", None))
    assert (lengths[0] is None) == (lengths[1] is None)
    assert headers == recorded["headers"]
    content_type = recorded["headers"].get("Content-Type", "")
    assert body.endswith(b"\n") == _recorded_body(recording).endswith(b"\n")
    ours, theirs = _events(content_type, body), _events(content_type, _recorded_body(recording))
    assert _order(ours) == _order(theirs)
    if content_type.startswith("text/plain") or _is_error(theirs[-1][1]):
        assert [_without_ids(data) for _, data in ours[-1:]] == [_without_ids(data) for _, data in theirs[-1:]]
        assert lengths[0] == lengths[1]


def _is_error(data: Any) -> bool:
    return isinstance(data, dict) and bool(data.get("error"))


def _without_ids(data: Any) -> Any:
    return {name: item for name, item in data.items() if name != "request_id"} if isinstance(data, dict) else data


@pytest.mark.parametrize("name", [name for name in CASES if name not in FAULTS])
async def test_a_recorded_request_is_answered_as_it_was_recorded(name: str) -> None:
    recording = _recording(name)
    async with simulated_ollama(SETTINGS) as (_, session):
        await _prepare(name, session)
        response, body, is_complete = await _replay(session, recording["request"])
        assert is_complete
        _assert_alike(recording, response, body)


async def _prepare(name: str, session: aiohttp.ClientSession) -> None:
    """What had been asked of the real server before."""
    if name == "ps-loaded":
        await _replay(session, _recording("generate-load")["request"])
    if name == "delete":
        await _replay(session, _recording("copy")["request"])


def _killed(after_tokens: int) -> Callable[[], Fault]:
    return lambda: Fault(kind=FaultKind.RUNNER_KILLED, after_tokens=after_tokens)


_FAULT_OF: dict[str, Callable[[], Fault]] = {
    "queue full (OLLAMA_MAX_QUEUE=1)": busy,
    "runner killed mid-stream": _killed(6),
    "runner killed before the reply": _killed(6),
    "server killed mid-stream": lambda: Fault(kind=FaultKind.HANG_UP, after_tokens=6),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_recorded_fault_looks_as_it_was_recorded(name: str) -> None:
    recording = _recording(name)
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(_FAULT_OF[recording["event"]]())
        response, body, is_complete = await _replay(session, recording["request"])
        assert is_complete == recording["response"].get("ended", "normally").startswith("normally")
        _assert_alike(recording, response, body)
        assert server.observations.answers == 0


async def test_a_killed_runner_is_loaded_again_by_the_next_request() -> None:
    request = _recording("fault-runner-killed-chat")["request"]
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.RUNNER_KILLED, after_tokens=2, times=1))
        for _ in range(2):
            _, body, _ = await _replay(session, request)
        assert json_lines(body)[-1]["done"] is True
        assert server.observations.loads.total() == 2


def test_the_copy_of_the_recordings_is_whole() -> None:
    assert len(CASES) == 68
    assert len(FAULTS) == 11
