"""What a caller calls its request comes back on every reply, and is found again in the job and in the access log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from service.api.http.middlewares import AccessLogger
from tests.support.access import ADMIN, service_with_keys
from tests.support.running import RunningService, service_in_process

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
    _, rows = await service.call("GET", "/requests")
    assert {type(row["request_id"]) for row in rows["requests"]} == {int}


def test_it_stands_in_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for headers in ({"X-Request-ID": NAME}, {}):
        request = make_mocked_request("GET", "/health", headers=headers)
        AccessLogger(logging.getLogger("service.access"), "").log(request, web.Response(), 0.1)
    named, unnamed = caplog.messages
    assert named == f"{unnamed} {NAME}"
