"""Ollama's own command line, by what it was seen to send (0.33, of which the head is the same in every request)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.dropin.test_wire import connected, reply_of
from tests.support.access import ADMIN, headers_of, made_key, service_with_keys
from tests.support.running import RunningService

AGENT = "ollama/0.33.0 (amd64 linux) Go/go1.26.8"
NEEDED = (
    "an API key is needed, and none that is known here was sent; send it as Authorization: Bearer … or as x-api-key"
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def asks(method: str, path: str, accept: str = "application/json", body: str = "") -> bytes:
    """A request as the command line writes it."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    unpacked = "" if method == "HEAD" else "Accept-Encoding: gzip\r\n"
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: {AGENT}\r\n{length}"
        f"Accept: {accept}\r\nContent-Type: application/json\r\n{unpacked}\r\n{body}"
    ).encode()


HEARTBEAT = asks("HEAD", "/")
SHOW = '{"model":"llama3.2","system":"","template":"","verbose":false,"options":null,"name":""}'
SHOW_BY_NAME = '{"model":"","system":"","template":"","verbose":false,"options":null,"name":"llama3.2"}'
GENERATE = '{"model":"llama3.2","prompt":"hi","suffix":"","system":"","template":"","options":{}}'
UNLOAD = '{"model":"llama3.2","prompt":"","suffix":"","system":"","template":"","keep_alive":"0s","options":null}'
PULL = '{"model":"","username":"","password":"","name":"llama3.2"}'
NDJSON = "application/x-ndjson"
COMMANDS = {
    "list": [HEARTBEAT, asks("GET", "/api/tags")],
    "ps": [HEARTBEAT, asks("GET", "/api/ps")],
    "show": [HEARTBEAT, asks("POST", "/api/show", body=SHOW_BY_NAME)],
    "run": [HEARTBEAT, asks("POST", "/api/show", body=SHOW), asks("POST", "/api/generate", NDJSON, GENERATE)],
    "stop": [HEARTBEAT, asks("POST", "/api/show", body=SHOW), asks("POST", "/api/generate", NDJSON, UNLOAD)],
    "pull": [HEARTBEAT, asks("POST", "/api/pull", NDJSON, PULL)],
    "rm": [HEARTBEAT, asks("DELETE", "/api/delete", body='{"model":"","name":"llama3.2"}')],
    "signin": [HEARTBEAT, asks("POST", "/api/me")],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[RunningService]:
    async with service_with_keys() as running:
        yield running


async def exchanged(
    service: RunningService, request: bytes, key: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    """The reply; the ``key`` is shown by a proxy on the way, since the command line cannot."""
    shown = b"" if key is None else f"\r\nAuthorization: {key}".encode()
    async with connected(service) as (reader, writer):
        head, _, rest = request.partition(b"\r\n")
        writer.write(head + shown + b"\r\n" + rest)
        if request.startswith(b"HEAD"):
            told = (await reader.readuntil(b"\r\n\r\n")).decode()
            return int(told.split(" ")[1]), {}, b""
        return await reply_of(reader)


@pytest.mark.parametrize("command", COMMANDS)
async def test_without_a_key_it_is_told_what_is_missing_by_a_status_that_it_takes_for_an_error(
    service: RunningService, command: str
) -> None:
    for shown in (None, "Bearer garbage"):
        heartbeat, *requests = COMMANDS[command]
        assert (await exchanged(service, heartbeat, shown))[0] == 200
        status, headers, body = await exchanged(service, requests[0], shown)
        assert (status, json.loads(body)) == (403, {"error": NEEDED})
        assert headers["content-type"] == "application/json; charset=utf-8"
        assert "www-authenticate" not in headers


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("list", '"llama3.2:latest"'),
        ("ps", '"models"'),
        ("show", '"details"'),
        ("run", '"done":true'),
        ("stop", '"unload"'),
        ("pull", '{"status":"success"}'),
    ],
)
async def test_with_a_key_it_gets_what_it_asks_for(service: RunningService, command: str, found: str) -> None:
    key = (await headers_of(service))["Authorization"]
    for request in COMMANDS[command]:
        status, _, body = await exchanged(service, request, key)
        assert status == 200, body
    assert found in body.decode()


async def test_a_users_key_does_not_change_models(service: RunningService) -> None:
    key = (await headers_of(service))["Authorization"]
    status, _, body = await exchanged(service, COMMANDS["rm"][-1], key)
    assert (status, json.loads(body)) == (403, {"error": "this needs an admin's API key"})


@pytest.mark.parametrize(
    ("agent", "path", "status"),
    [
        (AGENT, "/api/chat", 403),
        (AGENT, "/api/tags/", 403),
        (AGENT, "/v1/chat/completions", 401),
        (AGENT, "/v1/messages", 401),
        (AGENT, "/api/v1/prompts", 401),
        (AGENT, "/api/keys", 401),
        (AGENT, "/api/stats", 401),
        (AGENT, "/requests", 401),
        ("ollama-python/0.6.1 (x86_64 linux) Python/3.11", "/api/chat", 401),
        ("ollama-js/0.6.0", "/api/chat", 401),
        ("Mozilla/5.0 ollama/0.33.0", "/api/chat", 401),
        ("", "/api/chat", 401),
        ("curl/8.5.0", "/api/delete", 401),
    ],
)
async def test_everybody_else_and_everywhere_else_it_is_401(
    service: RunningService, agent: str, path: str, status: int
) -> None:
    methods = {"/api/delete": "DELETE", "/api/chat": "POST", "/v1/chat/completions": "POST", "/v1/messages": "POST"}
    options: Any = {"headers": {"User-Agent": agent}, "allow_redirects": False}
    async with service.session.request(methods.get(path, "GET"), path, data=b"{}", **options) as response:
        assert response.status == status
        assert (response.headers.get("WWW-Authenticate") == "Bearer") == (status == 401)


async def test_a_revoked_key_is_told_in_the_same_way(service: RunningService) -> None:
    made = await made_key(service)
    await service.call("DELETE", f"/api/keys/{made['id']}", headers=ADMIN)
    status, _, body = await exchanged(service, COMMANDS["list"][-1], f"Bearer {made['key']}")
    assert (status, json.loads(body)["error"]) == (403, "this API key was revoked; ask an admin for another")
