"""What goes over the wire: how long each request may take, what it is called, and who the server is found to be."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from corral import (
    AsyncClient,
    BadRequestError,
    CallTimeoutError,
    ConfigurationError,
    ConnectionFailedError,
    NotFoundError,
    NotSupportedError,
    QueueFullError,
)
from service.simulated import Fault, FaultKind
from tests.client.servers import Place
from tests.support.access import ADMIN, headers_of, service_with_keys
from tests.support.client_service import SETTINGS
from tests.support.raw_server import Exchange, raw_server, whole
from tests.support.running import RunningService, service_in_process

MESSAGES = [{"role": "user", "content": "Why?"}]
CORRAL = b'{"service":"corral","status":"unavailable"}'


class Recorded(httpx2.AsyncBaseTransport):
    """The real transport; it keeps what was asked."""

    def __init__(self) -> None:
        self._real = httpx2.AsyncHTTPTransport()
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return await self._real.handle_async_request(request)

    async def aclose(self) -> None:
        await self._real.aclose()

    @property
    def sent(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process(settings=SETTINGS) as running:
        yield running


@asynccontextmanager
async def recorded(url: str, **given: Any) -> AsyncIterator[tuple[AsyncClient, Recorded]]:
    transport = Recorded()
    async with AsyncClient(url, transport=transport, **given) as client:
        yield client, transport


@pytest.mark.parametrize(("seconds", "connect", "poll"), [(None, 5, 30), (40, 5, 20), (4, 4, 2)])
async def test_a_connection_and_a_poll_have_their_time(
    service: RunningService, seconds: float | None, connect: float, poll: float
) -> None:
    async with recorded(service.url, timeout=seconds) as (client, transport):
        await client.chat(messages=MESSAGES, max_tokens=2)
        job = await client.submit("Why?")
        await job.wait()
    limits = [request.extensions["timeout"] for request in transport.requests]
    assert {limit["connect"] for limit in limits} == {connect}
    assert {limit["read"] for limit in limits} == {seconds or 300}
    results = [request for request in transport.requests if request.url.path.endswith("/result")]
    assert [parse_qs(request.url.query.decode())["wait"] for request in results] == [[f"{poll:g}"]]
    polls = [parse_qs(one.url.query.decode()) for one in transport.requests if one.url.path.endswith("/status")]
    assert [one["wait"] for one in polls if one] == [[f"{poll:g}"]] * sum(map(bool, polls))


async def test_a_call_is_two_requests_all_named_as_it_is_and_none_is_sent_before_the_first_call(
    service: RunningService,
) -> None:
    async with recorded(service.url, api_key="sk-mine", headers={"X-Team": "blue"}) as (client, transport):
        assert transport.sent == []
        answer = await client.generate(prompt="Why?", max_tokens=2, request_id="mine")
        path = f"/api/v1/prompt/{answer['job_id']}"
        assert transport.sent == ["GET /health", "POST /api/v1/prompt", f"GET {path}/result"]
        assert [one.headers.get("X-Request-ID") for one in transport.requests[1:]] == ["mine", "mine"]
        assert {one.headers["Authorization"] for one in transport.requests} == {"Bearer sk-mine"}
        assert {one.headers["X-Team"] for one in transport.requests} == {"blue"}
        service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat"))
        with pytest.raises(CallTimeoutError):
            await client.generate(prompt="Why?", request_id="late", max_wait_seconds=0.1)
        assert transport.sent[-1].startswith("DELETE /api/v1/prompt/")
        assert {one.headers["X-Request-ID"] for one in transport.requests[3:]} == {"late"}


async def test_each_call_has_a_key_of_its_own_whichever_way_it_goes(service: RunningService) -> None:
    async with recorded(service.url) as (client, transport):
        for _ in range(2):
            await client.chat(messages=MESSAGES, max_tokens=2, request_id="constant")
            await client.generate(prompt="Why?", raw=True, max_tokens=2, request_id="constant")
            await client.embed("x", "nomic-embed-text", request_id="constant")
            await client.make_post_request_ollama(
                "/api/chat", {"model": "llama3.2", "messages": MESSAGES}, request_id="constant"
            )
            await client.submit("Why?", request_id="constant")
            _ = [chunk async for chunk in client.stream_chat(messages=MESSAGES, max_tokens=2, request_id="constant")]
        posts = [request for request in transport.requests if request.method == "POST"]
        assert len({request.headers["Idempotency-Key"] for request in posts}) == len(posts) == 12
        assert {request.headers["X-Request-ID"] for request in posts} == {"constant"}
        _, page = await service.call("GET", "/api/v1/prompts")
        assert page["total"] == 12


@pytest.mark.parametrize(
    ("health", "kind"),
    [
        (whole(CORRAL), "corral"),
        (whole(CORRAL, status="503 Service Unavailable"), "corral"),
        (whole(CORRAL, status="401 Unauthorized"), "corral"),
        (whole(CORRAL, status="404 Not Found"), "corral"),
        (whole(b"404 page not found", status="404 Not Found", content_type="text/plain"), "ollama"),
        (whole(b"Ollama is running", content_type="text/plain"), "ollama"),
        (whole(b'{"service":"other"}'), "ollama"),
        (whole(b'["corral"]'), "ollama"),
        (whole(b"<html>", status="500 x", content_type="text/html"), "ollama"),
    ],
)
async def test_what_health_says_tells_a_corral_at_any_status(health: bytes, kind: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(health if exchange.path == "/health" else whole(b'{"models":[]}'))

    async with raw_server(answer) as server, AsyncClient(server.url) as client:
        assert (client.server, server.requests) == (None, [])
        assert await client.list_models() == []
        assert client.server == kind
        assert [request.path for request in server.requests] == ["/health", "/api/tags"]


async def test_without_a_model_the_servers_default_is_asked(service: RunningService, bare: Place) -> None:
    """Corral knows it by itself, and tells it where its drop-in routes do not; a bare Ollama has none."""
    service_model = service.config.queue.default_model
    async with AsyncClient(service.url) as client:
        assert (await client.generate(prompt="Why?", max_tokens=1))["model"] == service_model
        assert (await client.generate(prompt="Why?", raw=True, max_tokens=1))["model"] == service_model
    async with AsyncClient(bare.url) as client:
        assert (await client.generate(prompt="Why?", max_tokens=1))["model"] == "llama3.2"
    assert bare.ollama.observations.seen[-1].model == "llama3.2"


async def test_what_needs_a_queue_says_what_to_start(bare: Place) -> None:
    async with AsyncClient(bare.url) as client:
        job = client.job("01890a5d-ac96-774b-bcce-b302099a8057")
        for ask in (
            client.submit("hello"),
            anext(client.jobs()),
            client.cancel_all(),
            job.status(),
            job.wait(),
            job.result(),
            anext(job.stream()),
            job.cancel(),
            job.request(),
        ):
            with pytest.raises(NotSupportedError, match="python -m service"):
                await ask
        assert not bare.ollama.observations.seen


async def test_jobs_and_lists_take_no_places(service: RunningService) -> None:
    stall = service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat", after_tokens=1))
    async with AsyncClient(service.url) as client:
        client.max_concurrent_requests, client.queue_size = 1, 0
        stream = client.stream_chat(messages=MESSAGES)
        assert (await anext(stream))["text"]
        with pytest.raises(QueueFullError):
            await client.generate(prompt="Why?")
        job = await client.submit("Why?", max_tokens=2)
        assert (await job.result())["text"]
        assert (await job.status())["status"] == "completed"
        assert [event["type"] async for event in job.stream()][-1] == "done"
        assert len([each async for each in client.jobs()]) == 2
        assert await client.list_models()
        stall.release()


async def test_one_word_of_a_lost_reply_is_enough_to_find_it_again() -> None:
    """The reply to a submission is lost: the same bytes with the same key find the same job."""
    posts: list[Exchange] = []

    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.send(whole(CORRAL))
            return
        posts.append(exchange)
        if len(posts) == 1:
            exchange.reset()
            return
        await exchange.send(whole(b'{"id":"j","status":"queued","position":1}', status="202 Accepted"))

    async with raw_server(answer) as server, AsyncClient(server.url) as client:
        client._parts.time.sleep = lambda _: asyncio.sleep(0)
        job = await client.submit("hello")
        assert job.id == "j"
    assert len({(post.body, post.headers["Idempotency-Key"]) for post in posts}) == 1
    assert len(posts) == 2


async def test_jobs_come_newest_first_page_by_page_and_filtered(service: RunningService) -> None:
    service.stall()
    async with AsyncClient(service.url) as client:
        ids = [(await client.submit(f"prompt {number}")).id for number in range(103)]
        other = (await client.submit("another", model="qwen3:4b", priority="low")).id
        assert [job["id"] async for job in client.jobs()] == [other, *reversed(ids)]
        assert [job["id"] async for job in client.jobs(model="qwen3:4b")] == [other]
        assert [job["id"] async for job in client.jobs(text="prompt 7", status="queued")][-1] == ids[7]
        assert [job async for job in client.jobs(status="failed")] == []


async def test_many_jobs_are_cancelled_by_their_owner_or_by_whom_sees_all() -> None:
    async with service_with_keys(seats=1) as service:
        service.stall()
        keys = [(await headers_of(service, name=name))["Authorization"].split()[1] for name in ("one", "two")]
        admin = ADMIN["Authorization"].split()[1]
        async with (
            AsyncClient(service.url, api_key=keys[0]) as one,
            AsyncClient(service.url, api_key=keys[1]) as two,
            AsyncClient(service.url, api_key=admin) as all_,
        ):
            for client in (one, two):
                for model in ("llama3.2", "llama3.2", "thinker"):
                    await client.submit("hello", model=model)
            assert len([job async for job in one.jobs()]) == 3
            assert len([job async for job in all_.jobs()]) == 6
            assert await all_.cancel_all() == 0
            assert await one.cancel_all(model="thinker") == 1
            assert await one.cancel_all(status=["queued", "processing"], everybody=True) == 2
            assert await one.cancel_all() == 0
            with pytest.raises(BadRequestError, match="status"):
                await all_.cancel_all(status="completed", everybody=True)
            assert await all_.cancel_all(status="queued", model="thinker", everybody=True) == 1
            assert await all_.cancel_all(everybody=True) == 2


async def test_a_proxys_password_does_not_push_the_key_out() -> None:
    async with service_with_keys() as service:
        url, key = service.url.replace("//", "//me:password@"), ADMIN["Authorization"].split()[1]
        async with recorded(url, api_key=key) as (client, transport):
            assert (await client.generate(prompt="Why?", max_tokens=1))["text"]
        assert {one.headers["Authorization"].split()[0] for one in transport.requests} == {"Basic"}


async def test_no_line_of_any_log_shows_a_key_or_a_password(
    service: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with AsyncClient(service.url.replace("//", "//me:sk-password@"), api_key="sk-key") as client:
        await client.generate(prompt="Why?", max_tokens=1)
        assert await client.list_models()
        with pytest.raises(NotFoundError):
            await client.generate(prompt="Why?", model="nosuch")
        client.default_model = "nosuch"
        assert await client.test_ollama_endpoint() is False
    names = {record.name.partition(".")[0] for record in caplog.records}
    assert {"corral", "httpx2"} <= names
    assert "sk-" not in caplog.text


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "ftp://me:sk-xyzzy@box"), ("SSL_CERT_FILE", "/nowhere/at/all")]
)
async def test_an_environment_that_no_connection_can_be_made_with_is_told_as_that(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.lower(), raising=False)
    monkeypatch.setenv(name, value)
    async with AsyncClient("https://localhost:1", model="m") as client:
        for ask in (client.generate(prompt="x"), client.list_models(), anext(client.stream_chat(messages=MESSAGES))):
            with pytest.raises(ConfigurationError, match=name) as refused:
                await ask
            assert "xyzzy" not in "".join(traceback.format_exception(refused.value))
        assert client.failure_count == 0


async def test_a_model_is_copied_and_no_answer_is_looked_for(bare: Place) -> None:
    async with AsyncClient(bare.url) as client:
        copy = {"source": "llama3.2", "destination": "mine"}
        assert await client.make_post_request_ollama("/api/copy", copy) is None
        assert "mine:latest" in [model["name"] for model in await client.list_models()]
        assert client.usage_stats["successful_requests"] == 1


async def test_nothing_is_a_whole_reply_where_ollama_says_no_more_and_elsewhere_a_part_of_one() -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with raw_server(answer) as server, AsyncClient(server.url) as client:
        client.max_retries = 0
        assert await client.make_post_request_ollama("/api/copy", {}) is None
        assert [each.path for each in server.requests if each.method == "POST"] == ["/api/copy"]
        with pytest.raises(ConnectionFailedError, match="in part"):
            await client.make_post_request_ollama("/api/chat", {})
