"""The faults of the simulated Ollama do what they are named for, in every dialect."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from service.simulated import Fault, FaultKind, SimulatedServer, busy
from tests.support.simulation import CATALOGUE, TINY, json_lines, simulated_ollama, sse_events

ANSWER = "Grüße aus Köln: 東京 ist weit, 🦙 ist nah. " * 2
SETTINGS = replace(TINY, answer_text=ANSWER)
OPTIONS = {"num_predict": 30, "num_ctx": 512}
QUESTION = [{"role": "user", "content": "tell me"}]

# The path and the body of a streamed request in each dialect.
STREAMED: dict[str, dict[str, Any]] = {
    "/api/generate": {"model": "tiny1", "prompt": "tell me", "options": OPTIONS},
    "/api/chat": {"model": "tiny1", "messages": QUESTION, "options": OPTIONS},
    "/v1/chat/completions": {"model": "tiny1", "messages": QUESTION, "stream": True, "max_tokens": 30},
    "/v1/completions": {"model": "tiny1", "prompt": "tell me", "stream": True, "max_tokens": 30},
    "/v1/responses": {"model": "tiny1", "input": "tell me", "stream": True, "max_output_tokens": 30},
    "/v1/messages": {"model": "tiny1", "messages": QUESTION, "stream": True, "max_tokens": 30},
}
TERMINAL: dict[str, Any] = {
    "/v1/chat/completions": "[DONE]",
    "/v1/completions": "[DONE]",
    "/v1/responses": "response.completed",
    "/v1/messages": "message_stop",
}
EVERY_DIALECT = pytest.mark.parametrize("path", STREAMED)


async def _ask(session: aiohttp.ClientSession, path: str, **changes: Any) -> tuple[int, bytes]:
    async with session.post(path, json=STREAMED[path] | changes) as response:
        return response.status, await response.read()


async def _pieces(session: aiohttp.ClientSession, path: str) -> list[bytes]:
    """The body as the pieces that came."""
    async with session.post(path, json=STREAMED[path]) as response:
        return [piece async for piece in response.content.iter_any()]


async def _receive(response: aiohttp.ClientResponse, received: bytearray) -> None:
    async for piece in response.content.iter_any():
        received += piece


def _is_terminated(path: str, body: bytes) -> bool:
    if path.startswith("/api/"):
        lines = json_lines(body)
        return bool(lines) and lines[-1].get("done") is True
    events = sse_events(body)
    return bool(events) and TERMINAL[path] in events[-1]


@EVERY_DIALECT
async def test_an_undisturbed_stream_ends_with_its_marker(path: str) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        status, body = await _ask(session, path)
        assert status == 200
        assert _is_terminated(path, body)
        assert server.observations.answers == 1


@EVERY_DIALECT
@pytest.mark.parametrize("kind", [FaultKind.RUNNER_KILLED, FaultKind.ERROR_LINE, FaultKind.NO_DONE])
@pytest.mark.parametrize("after_tokens", [1, 4, 1000])
async def test_a_stream_that_is_cut_has_no_marker(path: str, kind: FaultKind, after_tokens: int) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=kind, after_tokens=after_tokens))
        status, body = await _ask(session, path)
        assert status == 200
        assert not _is_terminated(path, body)
        has_error = b'"error":"an error was encountered while running the model: unexpected EOF"' in body
        assert has_error == (path.startswith("/api/") and kind is not FaultKind.NO_DONE)
        assert server.observations.answers == 0


@EVERY_DIALECT
@pytest.mark.parametrize("kind", [FaultKind.RUNNER_KILLED, FaultKind.ERROR_LINE])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_runner_that_dies_before_the_first_byte_is_a_500(path: str, kind: FaultKind, is_stream: bool) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=kind, after_tokens=0 if is_stream else 5))
        status, body = await _ask(session, path, stream=is_stream)
        assert status == 500
        assert b"an error was encountered while running the model: unexpected EOF" in body


@EVERY_DIALECT
@pytest.mark.parametrize(("status", "message"), CATALOGUE)
async def test_an_error_before_the_first_byte_has_the_shape_of_its_dialect(
    path: str, status: int, message: str
) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.ERROR, status=status, message=message))
        found, body = await _ask(session, path)
        assert found == status
        error = json.loads(body)["error"]
        assert message == (error if path.startswith("/api/") else error["message"])


async def test_an_error_body_can_be_given_as_it_is() -> None:
    body = '{"error":"unauthorized","signin_url":"https://ollama.com/connect"}'
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.ERROR, status=401, body=body))
        assert await _ask(session, "/v1/chat/completions") == (401, body.encode())


@pytest.mark.parametrize(("path", "status"), [("/api/embed", 400), ("/api/embeddings", 500), ("/v1/embeddings", 400)])
async def test_a_runner_that_dies_under_an_embedding_is_worded_by_its_route(path: str, status: int) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.RUNNER_KILLED))
        async with session.post(path, json={"model": "embed", "input": "x", "prompt": "x"}) as response:
            assert response.status == status
            assert "do embedding request" in await response.text()


@EVERY_DIALECT
@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.HANG_UP])
async def test_a_broken_connection_is_seen_as_one(path: str, kind: FaultKind) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=kind, after_tokens=3))
        received = bytearray()
        async with session.post(path, json=STREAMED[path]) as response:
            # A client that meets the reset while it reads sees either error.
            with pytest.raises((aiohttp.ClientPayloadError, ConnectionResetError)):
                await _receive(response, received)
        assert received.endswith(b"\n") == (kind is FaultKind.HANG_UP)
        await server.observations.until(lambda seen: seen.in_flight == 0)
        assert server.observations.closed_connections == 0


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.HANG_UP])
@pytest.mark.parametrize("path", ["/api/chat", "/api/tags"])
async def test_a_connection_can_break_before_the_first_byte(kind: FaultKind, path: str) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=kind, endpoint=path))
        method = "GET" if path == "/api/tags" else "POST"
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await session.request(method, path, json=STREAMED.get(path))


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.HANG_UP])
async def test_a_whole_reply_can_break_in_the_middle(kind: FaultKind) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=kind, after_tokens=3))
        async with session.post("/api/chat", json=STREAMED["/api/chat"] | {"stream": False}) as response:
            with pytest.raises((aiohttp.ClientPayloadError, ConnectionResetError)):
                await response.read()


@EVERY_DIALECT
async def test_a_stream_split_at_every_byte_is_the_same_stream(path: str) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.SPLIT, size=1))
        pieces = await _pieces(session, path)
        assert _is_terminated(path, b"".join(pieces))
        assert "Köln".encode() in b"".join(pieces)
        assert any(_is_inside_a_character(piece) for piece in pieces)


def _is_inside_a_character(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return True
    return False


async def test_several_objects_can_travel_in_one_chunk() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.MERGE, size=4))
        pieces = await _pieces(session, "/api/chat")
        assert pieces[0].count(b"\n") >= 4
        assert _is_terminated("/api/chat", b"".join(pieces))


@EVERY_DIALECT
async def test_a_line_can_be_two_megabytes_long(path: str) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.LONG_LINE, after_tokens=2))
        _, body = await _ask(session, path)
        assert max(map(len, body.split(b"\n"))) > 2_000_000
        assert _is_terminated(path, body)


@EVERY_DIALECT
@pytest.mark.parametrize("after_tokens", [0, 2])
async def test_a_stall_lasts_until_it_is_released(path: str, after_tokens: int) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        stall = server.arm(Fault(kind=FaultKind.STALL, after_tokens=after_tokens))
        asking = asyncio.create_task(_ask(session, path))
        await server.observations.until(lambda seen: seen.stalled == 1)
        assert not asking.done()
        stall.release()
        status, body = await asking
        assert status == 200
        assert _is_terminated(path, body)


async def test_a_whole_reply_stalls_too_and_leaves_with_its_client() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.STALL, after_tokens=7))
        asking = asyncio.create_task(_ask(session, "/api/chat", stream=False))
        await server.observations.until(lambda seen: seen.stalled == 1)
        asking.cancel()
        await server.observations.until(lambda seen: seen.in_flight == 0)
        assert server.observations.closed_connections == 1
        assert server.observations.stalled == 0


@pytest.mark.parametrize("kind", [FaultKind.DELAY_HEADERS, FaultKind.PACE])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_reply_takes_the_time_that_it_is_told_to(kind: FaultKind, is_stream: bool) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=kind, seconds=0.001, times=1))
        status, body = await _ask(session, "/api/chat", stream=is_stream)
        assert status == 200
        assert _is_terminated("/api/chat", body)
        server.arm(Fault(kind=kind, seconds=3600))
        asking = asyncio.create_task(_ask(session, "/api/chat", stream=is_stream))
        await server.observations.until(lambda seen: seen.running.total() == 1)
        asking.cancel()
        await server.observations.until(lambda seen: seen.in_flight == 0)
        assert server.observations.closed_connections == 1


@pytest.mark.parametrize("path", ["/api/chat", "/api/tags", "/", "/nowhere", "/v1/models"])
async def test_something_that_is_not_ollama_answers_with_a_page(path: str) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.NOT_OLLAMA, status=404))
        method = "POST" if path == "/api/chat" else "GET"
        async with session.request(method, path, json=STREAMED.get(path)) as response:
            assert (response.status, response.content_type) == (404, "text/html")
            assert "<html>" in await response.text()


async def test_faults_reach_the_lists_too() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.ERROR, endpoint="/api/ps", message="cache unavailable", times=1))
        async with session.get("/api/ps") as response:
            assert (response.status, await response.json()) == (500, {"error": "cache unavailable"})
        async with session.get("/api/ps") as response:
            assert response.status == 200


async def test_a_fault_is_held_to_its_model_its_prompt_and_its_number_of_times() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        armed = server.arm(busy(model="TINY1:latest", prompt="tell", endpoint="/api/chat", times=2, skip=1))
        statuses = [(await _ask(session, "/api/chat"))[0] for _ in range(4)]
        assert statuses == [200, 503, 503, 200]
        assert armed.applied == 2
        assert (await _ask(session, "/api/generate"))[0] == 200
        server.arm(busy(model="tiny2"))
        assert (await _ask(session, "/api/chat"))[0] == 200
        assert (await _ask(session, "/api/chat", model="tiny2"))[0] == 503
        server.faults.clear()
        assert (await _ask(session, "/api/chat", model="tiny2"))[0] == 200


async def test_other_requests_of_a_killed_runner_are_cut_too() -> None:
    async with simulated_ollama(replace(SETTINGS, parallel=2)) as (server, session):
        stall = server.arm(Fault(kind=FaultKind.STALL, after_tokens=2, times=1))
        neighbour = asyncio.create_task(_ask(session, "/api/chat"))
        await server.observations.until(lambda seen: seen.stalled == 1)
        server.arm(Fault(kind=FaultKind.RUNNER_KILLED, after_tokens=1, times=1))
        await _ask(session, "/api/chat")
        stall.release()
        _, body = await neighbour
        assert "error" in json_lines(body)[-1]


async def test_a_server_can_refuse_connections_and_come_back() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        await _ask(session, "/api/chat")
        await server.refuse_connections()
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get("/api/tags")
        await server.accept_connections()
        assert (await _ask(session, "/api/chat"))[0] == 200
        assert server.observations.loads.total() == 1


async def test_a_server_that_dies_cuts_its_streams_and_forgets_its_models() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        server.arm(Fault(kind=FaultKind.STALL, after_tokens=2, times=1))
        async with session.post("/api/chat", json=STREAMED["/api/chat"]) as response:
            await server.observations.until(lambda seen: seen.stalled == 1)
            await server.die()
            with pytest.raises((aiohttp.ClientPayloadError, ConnectionResetError)):
                await response.read()
        await server.accept_connections()
        await _ask(session, "/api/chat")
        assert server.observations.loads.total() == 2


async def test_another_process_commands_faults_over_http() -> None:
    async with simulated_ollama(SETTINGS) as (_, session):
        fault = {"kind": "error", "status": 503, "message": "server busy", "times": 1, "endpoint": "/api/chat"}
        async with session.post("/simulated/faults", json=[fault, {"kind": "pace", "seconds": 0}]) as response:
            ids = (await response.json())["ids"]
        assert (await _ask(session, "/api/chat"))[0] == 503
        async with session.get("/simulated/faults") as response:
            listed = (await response.json())["faults"]
        assert [(each["id"], each["applied"]) for each in listed] == [(ids[0], 1), (ids[1], 1)]
        async with session.delete("/simulated/faults", params={"id": ids[0]}) as response:
            assert [each["id"] for each in (await response.json())["faults"]] == [ids[1]]
        async with session.delete("/simulated/faults") as response:
            assert (await response.json())["faults"] == []
        async with session.get("/simulated/state") as response:
            state = await response.json()
        assert state["requests"]["/api/chat"] == 1
        assert state["prompts"] == [{"order": 1, "endpoint": "/api/chat", "model": "tiny1", "prompt": "tell me"}]


@pytest.mark.parametrize("body", ["{", '{"kind":"nonsense"}', '{"kind":"error","colour":1}', "{}", "5"])
async def test_a_fault_that_cannot_be_read_is_refused(body: str) -> None:
    async with simulated_ollama(SETTINGS) as (_, session), session.post("/simulated/faults", data=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]


async def test_a_fault_can_be_armed_before_the_server_starts() -> None:
    server = SimulatedServer(SETTINGS)
    server.arm(busy())
    async with server, aiohttp.ClientSession(server.url) as session:
        assert (await _ask(session, "/api/chat"))[0] == 503
