"""Tokens for browsers: how they are got, what they open and for how long; on the websocket above all."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from service.api.context import CLOCK, LONG_LIVED
from service.api.http.middlewares import AccessLogger
from service.api.live.websocket import identity
from service.api.live.websocket.session import UNAUTHENTICATED
from service.key import Role
from service.keys.keyring import DEMO_KEYS
from tests.support.access import (
    ADMIN,
    Route,
    bearer,
    finished,
    headers_of,
    let_pass,
    made_key,
    service_with_keys,
    status_of,
    stored_key,
    token_of,
    two_users,
)
from tests.support.running import PATIENCE_SECONDS, RunningService

# Browser tokens


async def test_a_token_opens_what_its_key_opens() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service)
        token = await token_of(service, user)
        job_id = await finished(service, user)
        assert await status_of(service, Route("GET", f"/api/v1/prompt/{job_id}/result"), bearer(token)) == 200
        assert await status_of(service, Route("GET", "/api/keys"), bearer(token)) == 403
        other = await token_of(service, await headers_of(service))
        assert await status_of(service, Route("GET", f"/api/v1/prompt/{job_id}/result"), bearer(other)) == 404


async def test_an_event_stream_takes_the_token_from_its_address() -> None:
    async with service_with_keys() as service:
        user = await headers_of(service)
        path = f"/api/v1/prompt/{await finished(service, user)}/stream"
        async with service.session.get(path, params={"token": await token_of(service, user)}) as response:
            assert (response.status, b"event: done" in await response.read()) == (200, True)
        for token in ("", "a.b.c", "garbage"):
            assert (await service.session.get(path, params={"token": token})).status == 401


@pytest.mark.parametrize("minutes", [60, 5])
async def test_a_token_ends_after_its_minutes_and_with_its_key(minutes: int) -> None:
    async with service_with_keys({"auth.token_minutes": minutes}) as service:
        user = await headers_of(service)
        token = await token_of(service, user)
        let_pass(service, minutes * 60_000 - 5_000)
        assert await status_of(service, Route("GET", "/api/stats"), bearer(token)) == 200
        let_pass(service, 5_000)
        assert await status_of(service, Route("GET", "/api/stats"), bearer(token)) == 401
        made = await made_key(service)
        token = await token_of(service, bearer(made["key"]))
        await service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
        assert await status_of(service, Route("GET", "/api/stats"), bearer(token)) == 401


async def test_a_token_does_not_outlive_its_key() -> None:
    async with service_with_keys() as service:
        now = stored_key(service, DEMO_KEYS[Role.ADMIN]).created_at
        made = await made_key(service, expires=(now + 30_000) / 1000)
        _, answer = await service.call("POST", "/api/token", headers=bearer(made["key"]))
        assert answer["expires_in"] <= 30


async def test_a_token_cannot_be_traded_for_the_next_one() -> None:
    async with service_with_keys() as service:
        token = await token_of(service, await headers_of(service))
        assert (await service.call("POST", "/api/token", headers=bearer(token)))[0] == 401
        assert (await service.call("POST", "/api/token"))[0] == 401


async def test_a_token_that_somebody_else_signed_opens_nothing() -> None:
    async with service_with_keys() as one, service_with_keys() as two:
        foreign = await token_of(one, ADMIN)
        assert await status_of(two, Route("GET", "/api/keys"), bearer(foreign)) == 401
        head, _, signature = (await token_of(two, ADMIN)).split(".")
        named = base64.urlsafe_b64encode(json.dumps({"sub": DEMO_KEYS[Role.ADMIN]}).encode()).decode().rstrip("=")
        for claims in (named, "e30", ""):
            forged = f"{head}.{claims}.{signature}"
            assert await status_of(two, Route("GET", "/api/keys"), bearer(forged)) == 401
        unsigned = jwt.encode(
            {"sub": DEMO_KEYS[Role.ADMIN], "aud": "corral", "exp": 9_999_999_999}, "", algorithm="none"
        )
        assert await status_of(two, Route("GET", "/api/keys"), bearer(unsigned)) == 401


@pytest.mark.parametrize("kept", [True, False])
async def test_a_token_ends_with_the_text_of_a_demo_key(tmp_path: Path, kept: bool) -> None:
    async with service_with_keys(folder=tmp_path) as one:
        token = await token_of(one, ADMIN)
    text = ADMIN["Authorization"].removeprefix("Bearer ") if kept else "another-text-of-the-admins-demo-key"
    async with service_with_keys({"auth.demo_admin_key": text}, folder=tmp_path) as two:
        assert await status_of(two, Route("GET", "/api/keys"), bearer(text)) == 200
        assert await status_of(two, Route("GET", "/api/keys"), bearer(token)) == (200 if kept else 401)


@pytest.mark.parametrize("shown", ["key", "token"])
async def test_an_event_stream_ends_with_its_key_or_token(shown: str) -> None:
    async with service_with_keys({"auth.token_minutes": 1}) as service:
        now = service.app[CLOCK].now_ms()
        user = await headers_of(service, **({"expires": (now + 60_000) / 1000} if shown == "key" else {}))
        service.stall()
        _, job = await service.call("POST", "/api/v1/prompt", {"prompt": "Hello"}, headers=user)
        headers = user if shown == "key" else bearer(await token_of(service, user))
        async with service.session.get(f"/api/v1/prompt/{job['id']}/stream", headers=headers) as stream:
            assert stream.status == 200
            let_pass(service, 60_000)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert b"event: done" not in await stream.read()


async def test_who_polls_with_a_key_is_told_when_it_is_revoked() -> None:
    async with service_with_keys() as service:
        made = await made_key(service)
        user = bearer(made["key"])
        service.stall()
        _, job = await service.call("POST", "/api/v1/prompt", {"prompt": "Hello"}, headers=user)
        polls = [
            asyncio.create_task(service.call("GET", f"/api/v1/prompt/{job['id']}/{what}?wait=60", headers=user))
            for what in ("status", "result")
        ]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while service.app[LONG_LIVED].waits_of(f"key:{made['id']}") < 2:
                await service.call("GET", "/api/version", headers=user)
        await service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
        async with asyncio.timeout(PATIENCE_SECONDS):
            for status, answer in await asyncio.gather(*polls):
                assert (status, answer["error"]) == (401, "this API key was revoked; ask an admin for another")


@pytest.mark.parametrize(
    "query", ["token=aaa.bbb.ccc", "page=1&token=aaa.bbb.ccc&q=x", "tok%65n=aaa.bbb.ccc", "x=1&%74o%6Be%6e=aaa.bbb.ccc"]
)
def test_a_token_does_not_stand_in_the_access_log(query: str, caplog: pytest.LogCaptureFixture) -> None:
    address = URL(f"/api/v1/prompt/1/stream?{query}", encoded=True)
    request = make_mocked_request("GET", "/").clone(rel_url=address)
    with caplog.at_level(logging.INFO):
        AccessLogger(logging.getLogger("service.access"), "").log(request, web.Response(), 0.1)
    assert "/api/v1/prompt/1/stream" in caplog.text
    assert "bbb" not in caplog.text


# The websocket


@asynccontextmanager
async def connected(service: RunningService, **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with service.session.ws_connect("/api/v1/ws", **options) as socket:
        yield socket


async def asked(socket: aiohttp.ClientWebSocketResponse, **message: Any) -> dict[str, Any]:
    """The next message after this one was sent."""
    await socket.send_json(message)
    async with asyncio.timeout(PATIENCE_SECONDS):
        return dict(await socket.receive_json())


async def heard_until(
    socket: aiohttp.ClientWebSocketResponse, is_it: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """What is heard until a message is the one."""
    heard: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not heard or not is_it(heard[-1]):
            heard.append(await socket.receive_json())
    return heard


async def closed(socket: aiohttp.ClientWebSocketResponse) -> tuple[list[dict[str, Any]], int | None]:
    """What is still heard until the connection is closed, and the code of that."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        heard = [json.loads(message.data) async for message in socket]
    return heard, socket.close_code


async def test_a_websocket_shows_nothing_before_it_is_authenticated() -> None:
    async with two_users() as (service, own, _, job_id), connected(service) as socket:
        for channel in ({"channel": "jobs"}, {"channel": "stats"}, {"channel": "job", "id": job_id}):
            refusal = await asked(socket, type="subscribe", **channel)
            assert (refusal["type"], refusal["channel"]) == ("error", channel["channel"])
            assert refusal["error"].startswith("an API key is needed")
        assert (await asked(socket, type="auth", token="a.b.c"))["type"] == "error"
        await socket.send_json({"type": "auth", "token": await token_of(service, own)})
        snapshot = await asked(socket, type="subscribe", channel="jobs")
        assert ([job["id"] for job in snapshot["jobs"]], snapshot["total"]) == ([job_id], 1)


@pytest.mark.parametrize("way", ["header", "address"])
async def test_a_websocket_follows_its_own_jobs_and_no_others(way: str) -> None:
    async with two_users() as (service, own, other, job_id):
        options = {"headers": other} if way == "header" else {"params": {"token": await token_of(service, other)}}
        async with connected(service, **options) as socket:
            assert (await asked(socket, type="subscribe", channel="jobs"))["jobs"] == []
            refusal = await asked(socket, type="subscribe", channel="job", id=job_id)
            assert refusal["error"].startswith(f"there is no prompt '{job_id}'")
            await finished(service, own)
            theirs = await finished(service, other)
            heard = await heard_until(socket, lambda message: message.get("status") == "completed")
            assert {message["id"] for message in heard} == {theirs}
            done = await asked(socket, type="subscribe", channel="job", id=theirs)
            assert done["job"]["status"] == "completed"


async def test_an_expired_token_closes_the_websocket_after_a_chance_to_authenticate_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity, "GRACE_SECONDS", 0.2)
    async with service_with_keys({"auth.token_minutes": 0.005}) as service:
        user = await headers_of(service)
        async with connected(service, params={"token": await token_of(service, user)}) as socket:
            [told], code = await closed(socket)
            assert told["error"].startswith("the token has expired")
            assert code == UNAUTHENTICATED == 4401


async def test_whoever_authenticates_in_time_stays() -> None:
    async with service_with_keys({"auth.token_minutes": 0.005}) as service:
        user = await headers_of(service)
        async with connected(service, params={"token": await token_of(service, user)}) as socket:
            assert (await asked(socket, type="subscribe", channel="jobs"))["type"] == "subscribed"
            for _ in range(2):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    told = await socket.receive_json()
                assert told["error"].startswith("the token has expired")
                await socket.send_json({"type": "auth", "token": await token_of(service, user)})
            job_id = await finished(service, user)
            await heard_until(socket, lambda message: message.get("id") == job_id)


async def test_a_token_that_is_no_good_at_the_beginning_gets_the_same_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "GRACE_SECONDS", 0.2)
    async with service_with_keys() as service, connected(service, params={"token": "a.b.c"}) as socket:
        [told], code = await closed(socket)
        assert told["error"].startswith("this token is not one of ours")
        assert code == 4401


async def test_whoever_becomes_somebody_else_hears_no_more_of_what_it_may_not_see() -> None:
    async with service_with_keys() as service:
        own, other = await headers_of(service), await headers_of(service)
        async with connected(service, params={"token": await token_of(service, own)}) as socket:
            fault = service.stall()
            _, job = await service.call("POST", "/api/v1/prompt", {"prompt": "Hello"}, headers=own)
            assert (await asked(socket, type="subscribe", channel="job", id=job["id"]))["type"] == "subscribed"
            await socket.send_json({"type": "auth", "token": await token_of(service, other)})
            await socket.send_json({"type": "subscribe", "channel": "stats"})
            await heard_until(socket, lambda message: message["type"] == "subscribed" and message["channel"] == "stats")
            await service.call("DELETE", f"/api/v1/prompt/{job['id']}", headers=own)
            fault.release()
            theirs = await finished(service, other)
            await socket.send_json({"type": "subscribe", "channel": "job", "id": theirs})
            heard = await heard_until(socket, lambda message: message["type"] == "done")
            assert {message["id"] for message in heard if message["type"] != "stats"} == {theirs}


async def test_who_follows_with_a_key_is_sent_away_when_it_is_revoked() -> None:
    async with service_with_keys() as service:
        made = await made_key(service)
        user = bearer(made["key"])
        service.stall()
        _, job = await service.call("POST", "/api/v1/prompt", {"prompt": "Hello"}, headers=user)
        async with (
            connected(service, headers=user) as socket,
            connected(service, headers=ADMIN) as stays,
            service.session.get(f"/api/v1/prompt/{job['id']}/stream", headers=user) as stream,
        ):
            # A client reads all the time, as a browser does: the connection ends right after the word of it.
            heard = asyncio.create_task(closed(socket))
            await service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
            assert await heard == ([], 4401)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert b"event: done" not in await stream.read()
            assert (await asked(stays, type="subscribe", channel="stats"))["type"] == "subscribed"
