"""What a caller calls its request comes back on every reply, and is found again in the job and in the access log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from service.api.http.middlewares import AccessLogger
from tests.support.access import ADMIN, service_with_keys
from tests.support.raw_client import request_head
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process
from tests.support.walking import routes_of

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}]}
NAME = "call 17 of 'me' (~)"


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process() as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "origin"),
    [
        ("GET", "/health", None, 200, ""),
        ("GET", "/health", None, 200, "https://page.example"),
        ("HEAD", "/health", None, 200, ""),
        ("GET", "/", None, 200, ""),
        ("GET", "/nowhere", None, 404, ""),
        ("PUT", "/health", None, 405, ""),
        ("POST", "/api/v1/prompt", {"prompt": ""}, 400, ""),
        ("POST", "/api/v1/prompt", {"prompt": "hello"}, 202, ""),
        ("POST", "/api/chat", CHAT, 200, ""),
        ("POST", "/api/chat", {**CHAT, "stream": False}, 200, ""),
        ("POST", "/v1/chat/completions", {**CHAT, "stream": True}, 200, ""),
        ("POST", "/v1/messages", {**CHAT, "max_tokens": 3, "stream": True}, 200, ""),
        ("POST", "/api/chat", {"model": "nosuch", "messages": CHAT["messages"]}, 404, ""),
        ("POST", "/v1/chat/completions", {"model": "llama3.2", "messages": "x"}, 400, ""),
        ("POST", "/generate", {"prompt": "hello"}, 200, ""),
    ],
)
async def test_it_comes_back_whatever_the_reply(
    service: RunningService, method: str, path: str, body: object, status: int, origin: str
) -> None:
    headers = {"X-Request-ID": NAME, **({"Origin": origin} if origin else {})}
    async with service.session.request(method, path, json=body, headers=headers) as response:
        await response.read()
        assert (response.status, response.headers.getall("X-Request-ID")) == (status, [NAME])
    async with service.session.request(method, path, json=body) as response:
        await response.read()
        assert "X-Request-ID" not in response.headers


async def test_it_comes_back_on_a_jobs_events_and_where_a_key_is_missing(service: RunningService) -> None:
    job_id = await service.submit()
    async with service.session.get(f"/api/v1/prompt/{job_id}/stream", headers={"X-Request-ID": NAME}) as response:
        await response.read()
        assert response.headers["X-Request-ID"] == NAME
    async with service_with_keys() as closed:
        for headers, status in (({}, 401), (ADMIN, 200)):
            async with closed.session.get("/api/v1/prompts", headers={**headers, "X-Request-ID": NAME}) as response:
                assert (response.status, response.headers["X-Request-ID"]) == (status, NAME)


async def test_it_comes_back_from_every_route_and_with_a_websockets_upgrade(service: RunningService) -> None:
    routes = routes_of(service, id=await service.finished(), request_id="1")
    assert len(routes) > 90
    unnamed = []
    for route in routes:
        async with service.session.request(
            route.method, route.path, headers={"X-Request-ID": NAME}, allow_redirects=False
        ) as response:
            if response.headers.getall("X-Request-ID", []) != [NAME]:
                unnamed.append((route, response.status))
    assert unnamed == []
    async with service.session.ws_connect("/api/v1/ws", headers={"X-Request-ID": NAME}) as socket:
        assert socket._response.headers["X-Request-ID"] == NAME


SHORT_NAME = b"X-Request-ID: mine"
UNREADABLE = {
    "no header": request_head("GET", "/health", SHORT_NAME, b"no header") + b"\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\nx-request-id:mine \r\n\r\n",
    "a header too long": request_head("GET", "/health", SHORT_NAME, b"Long: " + b"x" * 70_000) + b"\r\n\r\n",
    "all too long": request_head("GET", "/health", SHORT_NAME, *[b"H%d: " % n + b"x" * 9_000 for n in range(50)])
    + b"\r\n\r\n",
    "a length that is none": request_head("POST", "/api/chat", SHORT_NAME, b"Content-Length: x") + b"\r\n\r\n",
    "a chunk that is none": request_head("POST", "/api/chat", SHORT_NAME, b"Transfer-Encoding: chunked")
    + b"\r\n\r\nzz\r\n",
    "no address": request_head("GET", "http://[", SHORT_NAME) + b"\r\n\r\n",
}


async def test_it_comes_back_and_is_logged_where_the_rest_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.access")
    async with service_in_process(access_log=True) as service:
        for what, request in UNREADABLE.items():
            for sent, wanted in ((request, ["X-Request-ID: mine"]), (request.replace(b"mine", b"\xff"), [])):
                reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
                writer.write(sent)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                    await reader.read()
                writer.close()
                await writer.wait_closed()
                assert head[0].split()[1] in ("400", "431"), what
                assert [line for line in head if line.lower().startswith("x-request-id")] == wanted, what
    lines = [record.getMessage() for record in caplog.records if record.name == "service.access"]
    assert [line.endswith(" mine") for line in lines] == [True, False] * len(UNREADABLE)


async def test_no_more_is_taken_for_a_name_than_the_head_says(service: RunningService) -> None:
    """Not what stands in a body, and not what is too long."""
    for sent in (
        b"POST /api/chat HTTP/1.1\r\nContent-Length: x\r\n\r\nX-Request-ID: mine\r\n\r\n",
        b"GET /X-Request-ID:mine HTTP/1.1\r\nX-Request-ID: " + b"x" * 129 + b"\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert (head.split()[1], b"x-request-id" in head.lower()) == (b"400", False)


@pytest.mark.parametrize("name", ["", "x" * 129, "naïve", "a\tb"])
async def test_what_is_no_name_is_passed_over(service: RunningService, name: str) -> None:
    async with service.session.post(
        "/api/v1/prompt", json={"prompt": "hello"}, headers={"X-Request-ID": name}
    ) as response:
        job = await response.json()
        assert (response.status, "X-Request-ID" in response.headers) == (202, False)
    assert "request_id" not in await service.until(job["id"], "completed")


async def test_it_is_one_of_the_jobs_own_facts_through_whichever_door_it_came(service: RunningService) -> None:
    prompt = {"prompt": "hello"}
    for path, body in (("/api/v1/prompt", prompt), ("/api/chat", CHAT), ("/generate", prompt)):
        async with service.session.post(path, json=body, headers={"X-Request-ID": f"{NAME} {path}"}) as response:
            await response.read()
        _, page = await service.call("GET", "/api/v1/prompts", params={"page_size": "1"})
        [job] = page["prompts"]
        assert job["request_id"] == f"{NAME} {path}"
        for part in ("status", "result"):
            _, seen = await service.call("GET", f"/api/v1/prompt/{job['id']}/{part}")
            assert seen["request_id"] == job["request_id"]
    # There that name is the job's number.
    headers = {"X-Request-ID": NAME}
    _, accepted = await service.call("POST", "/generate", prompt, headers=headers)
    _, status = await service.call("GET", f"/status/{accepted['request_id']}", headers=headers)
    _, rows = await service.call("GET", "/requests", headers=headers)
    numbers = [accepted["request_id"], status["request_id"], *(row["request_id"] for row in rows["requests"])]
    assert {type(number) for number in numbers} == {int}


async def test_it_stands_in_the_access_log_of_replies_of_every_kind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.access")
    paths = ("/health", "/nowhere", "/", "/api/v1/prompts", "/generate")
    async with service_in_process(access_log=True) as service:
        for path in paths:
            async with service.session.get(path, headers={"X-Request-ID": NAME}) as response:
                await response.read()
    lines = [record.getMessage() for record in caplog.records if record.name == "service.access"]
    assert [(line.split()[2], line.endswith(f"ms {NAME}")) for line in lines] == [(path, True) for path in paths]


def test_it_stands_in_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for headers in ({"X-Request-ID": NAME}, {}):
        request = make_mocked_request("GET", "/health", headers=headers)
        AccessLogger(logging.getLogger("service.access"), "").log(request, web.Response(), 0.1)
    named, unnamed = caplog.messages
    assert named == f"{unnamed} {NAME}"
