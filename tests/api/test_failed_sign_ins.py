"""Keys that nobody has: the answer to each is held back, and nobody else waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest
import pytest_asyncio

from service.api.access import failed_sign_ins
from service.api.access.failed_sign_ins import FAILED_SIGN_INS, MOST_HELD, FailedSignIns
from service.errors import LimitReachedError
from tests.dropin.test_wire import connected
from tests.support.access import ADMIN, bearer, headers_of, made_key, service_with_keys
from tests.support.running import PATIENCE_SECONDS, RunningService

FOR_EVER = 1e6
UNKNOWN = bearer("sk-corral-of-nobody")
STREAM = "/api/v1/prompt/01890a5d-ac96-774b-bcce-b302099a8057/stream"
TOKEN = "e30.e30.e30"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[RunningService]:
    """One for all, so each test asks under an address of its own."""
    async with service_with_keys({"server.trusted_proxies": ["127.0.0.1"]}) as running:
        yield running


@pytest.fixture
def service(shared: RunningService) -> RunningService:
    shared.app[FAILED_SIGN_INS].first_seconds = FOR_EVER
    return shared


def of(address: str) -> dict[str, str]:
    """The header by which a trusted proxy tells the address."""
    return {"X-Forwarded-For": address}


async def until_held(service: RunningService, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while service.app[FAILED_SIGN_INS].held_now != count:
            await service.call("GET", "/health")


async def left(*calls: asyncio.Task[Any]) -> None:
    """Their callers leave."""
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


async def test_the_time_doubles_up_to_ten_seconds_and_is_forgotten() -> None:
    failed = FailedSignIns()

    def seconds(address: str, now: float) -> float:
        with failed.held(address, now) as held:
            return held

    assert [seconds("a", now) for now in range(6)] == [1, 2, 4, 8, 10, 10]
    assert seconds("b", 6) == 1
    assert seconds("a", 600) == 10
    assert seconds("a", 1201) == 1


async def test_of_one_address_so_many_are_held_back_and_of_others_too() -> None:
    failed = FailedSignIns()
    with ExitStack() as held:
        for _ in range(MOST_HELD):
            held.enter_context(failed.held("a", 0))
        with pytest.raises(LimitReachedError), failed.held("a", 0):
            pass
        with failed.held("b", 0):
            assert failed.held_now == MOST_HELD + 1
    with failed.held("a", 0):
        assert failed.held_now == 1


async def test_the_addresses_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_sign_ins, "_MOST_ADDRESSES", 10)
    failed = FailedSignIns()
    with failed.held("held", 0):
        for number in range(100):
            with failed.held(f"{number}", 0):
                assert len(failed) <= 11
        # Whoever is held back keeps what it has.
        assert failed.held_now == 1
        with failed.held("held", 0) as seconds:
            assert seconds == 2


Ask = Callable[[RunningService, dict[str, str]], Coroutine[Any, Any, object]]


def asking(method: str, path: str, **headers: str) -> Ask:
    async def ask(service: RunningService, sent: dict[str, str]) -> object:
        return await service.call(method, path, headers={**sent, **headers})

    return ask


async def hand_shake(service: RunningService, sent: dict[str, str]) -> object:
    return await service.session.ws_connect("/api/v1/ws", headers={**sent, **UNKNOWN})


async def connect_with_token(service: RunningService, sent: dict[str, str]) -> object:
    async with service.session.ws_connect("/api/v1/ws?token=rubbish", headers=sent) as socket:
        return await socket.receive()


async def authenticate(service: RunningService, sent: dict[str, str]) -> object:
    async with service.session.ws_connect("/api/v1/ws", headers=sent) as socket:
        await socket.send_json({"type": "auth", "token": TOKEN})
        return await socket.receive()


GUESSES = {
    "a bearer": asking("GET", "/api/v1/prompts", **UNKNOWN),
    "a bearer at Ollama's": asking("POST", "/api/chat", **UNKNOWN),
    "an x-api-key": asking("POST", "/v1/messages", **{"x-api-key": "rubbish"}),
    "a signed token of others": asking("GET", "/api/v1/prompts", **bearer(TOKEN)),
    "a token for a token": asking("POST", "/api/token", **UNKNOWN),
    "a token in the query": asking("GET", f"{STREAM}?token={TOKEN}"),
    "rubbish in the query": asking("GET", f"{STREAM}?token=rubbish"),
    "at an open route": asking("GET", "/health", **UNKNOWN),
    "at a page": asking("GET", "/list", **UNKNOWN),
    "where there is nothing": asking("POST", "/api/of/a/newer/ollama", **UNKNOWN),
    "a websocket": hand_shake,
    "a websocket's query": connect_with_token,
    "a websocket's message": authenticate,
}


async def test_every_guess_is_held_back_and_its_place_is_free_when_the_caller_leaves(service: RunningService) -> None:
    guesses = {name: asyncio.create_task(ask(service, of("192.0.2.1"))) for name, ask in GUESSES.items()}
    await until_held(service, len(guesses))
    assert not [name for name, guess in guesses.items() if guess.done()]
    await left(*guesses.values())
    await until_held(service, 0)


async def test_beyond_so_many_the_answer_is_429_at_once_and_keys_that_are_known_wait_for_nothing(
    service: RunningService,
) -> None:
    sent = of("2001:db8:0:1::7")
    good = await headers_of(service)
    ended = await made_key(service)
    assert (await service.call("DELETE", f"/api/keys/{ended['id']}", headers=ADMIN))[0] in (200, 204)
    ask = GUESSES["a bearer"]
    guesses = [asyncio.create_task(ask(service, sent)) for _ in range(MOST_HELD)]
    await until_held(service, MOST_HELD)
    # The neighbours in an IPv6 network are one.
    for asked in (sent, of("2001:db8:0:1::8")):
        async with service.session.get("/api/v1/prompts", headers={**asked, **UNKNOWN}) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "10")
        assert (await service.call("POST", "/api/chat", headers={**asked, **UNKNOWN}))[0] == 429
        assert (await service.call("GET", "/health", headers={**asked, **UNKNOWN}))[0] == 429
    async with service.session.ws_connect("/api/v1/ws?token=rubbish", headers=sent) as socket:
        assert (await socket.receive_json())["type"] == "error"
    for headers, status in ((good, 200), (ADMIN, 200), ({}, 401), (bearer(ended["key"]), 401)):
        assert (await service.call("GET", "/api/v1/prompts", headers={**sent, **headers}))[0] == status
    # Of several keys the one that is known counts.
    several = {**sent, **UNKNOWN, "x-api-key": good["Authorization"].removeprefix("Bearer ")}
    assert (await service.call("GET", "/api/v1/prompts", headers=several))[0] == 200
    other = asyncio.create_task(ask(service, of("2001:db8:0:2::7")))
    await until_held(service, MOST_HELD + 1)
    await left(*guesses, other)
    await until_held(service, 0)


async def test_the_body_is_not_read_meanwhile(service: RunningService) -> None:
    size = 48 * 1024 * 1024
    async with connected(service) as (_, writer):
        head = f"POST /api/chat HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.3\r\nContent-Length: {size}\r\n"
        writer.write(f"{head}Authorization: {UNKNOWN['Authorization']}\r\n\r\n".encode() + bytes(size))
        await until_held(service, 1)
        for _ in range(20):
            assert (await service.call("GET", "/health"))[0] == 200
        assert writer.transport.get_write_buffer_size() > size // 2
        writer.transport.abort()


async def test_in_the_end_the_answer_is_what_it_was(shared: RunningService) -> None:
    shared.app[FAILED_SIGN_INS].first_seconds = 0.001
    sent = of("192.0.2.4")
    for path, status in (("/api/v1/prompts", 401), ("/health", 200), ("/list", 200), ("/api/of/a/newer/ollama", 404)):
        async with shared.session.get(path, headers={**sent, **UNKNOWN}) as response:
            assert response.status == status
    async with shared.session.ws_connect("/api/v1/ws", headers=sent) as socket:
        await socket.send_json({"type": "auth", "token": TOKEN})
        assert "not one of ours" in (await socket.receive_json())["error"]


async def test_where_keys_are_not_required_nothing_is_held_back() -> None:
    async with service_with_keys(required=False) as open_to_all:
        open_to_all.app[FAILED_SIGN_INS].first_seconds = FOR_EVER
        assert (await open_to_all.call("GET", "/api/v1/prompts", headers=UNKNOWN))[0] == 200
        async with open_to_all.session.ws_connect("/api/v1/ws?token=rubbish") as socket:
            assert (await socket.receive_json())["type"] == "error"


async def test_at_a_stop_nobody_waits_any_longer() -> None:
    async with service_with_keys() as stopping:
        stopping.app[FAILED_SIGN_INS].first_seconds = FOR_EVER
        guess = asyncio.create_task(stopping.call("GET", "/api/v1/prompts", headers=UNKNOWN))
        await until_held(stopping, 1)
        await stopping.stop()
        assert (await guess)[0] == 401
