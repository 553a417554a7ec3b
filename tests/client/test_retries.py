"""What is tried again, how often, after how long, and with which error it ends."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from corral import (
    AsyncClient,
    AuthenticationError,
    BadRequestError,
    CallTimeoutError,
    ConnectionFailedError,
    CorralError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
)
from tests.support.client_time import OwnTime
from tests.support.raw_server import Exchange, raw_server, whole

ANSWER = b'{"model":"m","message":{"role":"assistant","content":"yes"},"done":true,"done_reason":"stop","eval_count":1}'
NO_HEALTH = whole(b"404 page not found", status="404 Not Found", content_type="text/plain")
HALF_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n"
Answer = Callable[[Exchange], Awaitable[None]]


def refusal(status: str, *headers: str) -> bytes:
    extra = "".join(f"{header}\r\n" for header in headers)
    body = b'{"error":"not now"}'
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


@asynccontextmanager
async def client_of(*replies: bytes) -> AsyncIterator[tuple[AsyncClient, OwnTime, list[Exchange]]]:
    """A client of an Ollama that gives these replies to POSTs, the last again and again. None that is empty: the
    connection is reset.
    """
    posts: list[Exchange] = []

    async def answer(exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.send(NO_HEALTH)
            return
        posts.append(exchange)
        reply = replies[min(len(posts), len(replies)) - 1]
        if reply:
            await exchange.send(reply)
        if not reply or reply.startswith(HALF_HEAD):
            exchange.reset()

    async with raw_server(answer) as server, AsyncClient(server.url, model="m") as client:
        client.failure_threshold = 100
        yield client, OwnTime(client), posts


async def failure(client: AsyncClient) -> CorralError:
    with pytest.raises(CorralError) as raised:
        await client.generate(prompt="Why?", request_id="this one")
    assert raised.value.request_id == "this one"
    return raised.value


PASSING = [
    b"",
    HALF_HEAD + ANSWER,
    refusal("429 Too Many Requests"),
    refusal("500 Internal Server Error"),
    refusal("502 Bad Gateway"),
    refusal("503 Service Unavailable"),
    refusal("504 Gateway Timeout"),
    whole(b"<html>bad gateway</html>", status="502 Bad Gateway", content_type="text/html"),
    whole(ANSWER[:40]),
    whole(b'{"model":"m","message":{"content":"half"},"done":false}'),
]


@pytest.mark.parametrize("reply", PASSING)
async def test_what_fails_in_passing_is_sent_again_with_the_same_bytes_and_key(reply: bytes) -> None:
    async with client_of(reply, reply, whole(ANSWER)) as (client, _, posts):
        answer = await client.generate(prompt="Why?", max_tokens=5)
    assert (answer["text"], answer["attempts"]) == ("yes", 3)
    assert len(posts) == 3
    assert len({(post.body, post.headers["Idempotency-Key"], post.headers["X-Request-ID"]) for post in posts}) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", BadRequestError),
        ("401 Unauthorized", AuthenticationError),
        ("403 Forbidden", PermissionDeniedError),
        ("404 Not Found", NotFoundError),
        ("410 Gone", NotFoundError),
        ("413 Content Too Large", BadRequestError),
        ("422 Unprocessable Content", BadRequestError),
        ("418 I'm a Teapot", ResponseError),
        ("501 Not Implemented", ServerError),
    ],
)
async def test_what_would_end_in_the_same_way_is_not_sent_again(status: str, kind: type[ResponseError]) -> None:
    async with client_of(refusal(status)) as (client, own_time, posts):
        error = await failure(client)
    assert type(error) is kind
    assert isinstance(error, ResponseError)
    assert (error.status_code, error.message, error.body) == (int(status[:3]), "not now", b'{"error":"not now"}')
    assert (error.attempts, len(posts), own_time.sleeps) == (1, 1, [])


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"", ConnectionFailedError),
        (refusal("429 Too Many Requests"), RateLimitError),
        (refusal("503 Service Unavailable"), ServerError),
        (whole(ANSWER[:40]), ConnectionFailedError),
    ],
)
async def test_after_the_last_try_the_last_error_is_raised(reply: bytes, kind: type[CorralError]) -> None:
    async with client_of(reply) as (client, own_time, posts):
        client.max_retries = 2
        error = await failure(client)
    assert type(error) is kind
    assert (error.attempts, len(posts), len(own_time.sleeps)) == (3, 3, 2)


async def test_the_waits_grow_to_their_bound_and_are_between_half_and_all_of_it() -> None:
    async with client_of(refusal("503 Service Unavailable")) as (client, own_time, _):
        client.max_retries, client.initial_retry_delay, client.backoff_factor, client.max_retry_delay = 7, 1, 3, 30
        await failure(client)
    bounds = [1, 3, 9, 27, 30, 30, 30]
    assert all(bound / 2 <= slept <= bound for slept, bound in zip(own_time.sleeps, bounds, strict=True))
    assert len({round(slept / bound, 6) for slept, bound in zip(own_time.sleeps, bounds, strict=True)}) == 7


async def test_settings_hold_from_the_next_decision_on() -> None:
    async def fewer(seconds: float) -> None:
        client.max_retries = 1

    async with client_of(refusal("503 Service Unavailable")) as (client, _, posts):
        client._parts.time.sleep = fewer
        assert (await failure(client)).attempts == len(posts) == 2


async def test_the_server_may_say_how_long_to_wait() -> None:
    later = email.utils.formatdate(time.time() + 40, usegmt=True)
    replies = [
        refusal("429 Too Many Requests", "Retry-After: 7"),
        refusal("503 Service Unavailable", "Retry-After: 0"),
        refusal("503 Service Unavailable", f"Retry-After: {later}"),
        refusal("503 Service Unavailable", "Retry-After: soon"),
        whole(ANSWER),
    ]
    async with client_of(*replies) as (client, own_time, _):
        await client.generate(prompt="Why?")
    first, second, third, fourth = own_time.sleeps
    assert first == 7
    assert 1 <= second <= 2
    assert 30 <= third <= 40
    assert 4 <= fourth <= 8


async def test_who_wants_to_be_left_alone_for_long_is_not_waited_for() -> None:
    async with client_of(refusal("429 Too Many Requests", "Retry-After: 61")) as (client, own_time, posts):
        error = await failure(client)
    assert isinstance(error, RateLimitError)
    assert (error.retry_after_seconds, len(posts), own_time.sleeps) == (61, 1, [])


async def test_a_server_may_say_that_it_is_no_use() -> None:
    reply = refusal("503 Service Unavailable", "x-should-retry: false")
    async with client_of(reply) as (client, _, posts):
        assert isinstance(await failure(client), ServerError)
        assert len(posts) == 1


async def test_a_page_of_some_other_server_is_told_as_what_it_is() -> None:
    page = whole(b"<html>hello</html>", content_type="text/html")
    async with client_of(page) as (client, _, posts):
        error = await failure(client)
    assert isinstance(error, ResponseError)
    assert (error.status_code, error.body, len(posts)) == (200, b"<html>hello</html>", 1)
    assert "base_url" in str(error)


async def test_nobody_there_is_a_connection_that_failed_and_five_tries() -> None:
    async with raw_server(_never) as server:
        url = server.url
    async with AsyncClient(url, model="m") as client:
        own_time = OwnTime(client)
        error = await failure(client)
        assert isinstance(error, ConnectionFailedError)
        assert isinstance(error, ConnectionError)
        assert error.__cause__ is not None
        assert (error.attempts, len(own_time.sleeps), client.circuit_state) == (5, 4, "OPEN")
        assert client.server is None


async def test_a_server_that_listens_and_says_nothing_is_a_timeout() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.until_gone()

    async with raw_server(silent) as server, AsyncClient(server.url, model="m", timeout=0.05) as client:
        OwnTime(client)
        client.max_retries = 1
        error = await failure(client)
        assert isinstance(error, CallTimeoutError)
        assert isinstance(error, TimeoutError)
        assert error.attempts == server.connections == 2


@pytest.mark.parametrize(
    ("status", "kind"), [("401 Unauthorized", AuthenticationError), ("403 Forbidden", PermissionDeniedError)]
)
async def test_a_key_that_is_missing_where_it_is_asked_who_the_server_is(status: str, kind: type[CorralError]) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.send(whole(b'{"error":"who are you?"}', status=status))

    async with raw_server(refuse) as server, AsyncClient(server.url, model="m") as client:
        assert type(await failure(client)) is kind
        assert len(server.requests) == 1


async def test_who_the_server_is_is_asked_once_not_before_the_first_call_and_again_after_it_was_away() -> None:
    paths: list[str] = []

    async def answer(exchange: Exchange) -> None:
        paths.append(exchange.path)
        if len(paths) == 4:
            exchange.reset()
            return
        is_health = exchange.path == "/health"
        await exchange.send(
            whole(b"no", status="404 Not Found", content_type="text/plain") if is_health else whole(ANSWER)
        )

    async with raw_server(answer) as server, AsyncClient(server.url, model="m") as client:
        OwnTime(client)
        assert (client.server, paths) == (None, [])
        await asyncio.gather(*(client.generate(prompt="Why?") for _ in range(2)))
        assert (client.server, paths) == ("ollama", ["/health", "/api/chat", "/api/chat"])
        await client.generate(prompt="Why?")
        assert paths[3:] == ["/api/chat", "/api/chat"]
        await client.generate(prompt="Why?")
        assert paths[5:] == ["/health", "/api/chat"]


async def _never(_: Exchange) -> None:
    raise AssertionError("nobody calls")


async def test_a_dead_servers_errors_are_counted_and_nothing_hangs() -> None:
    async with client_of(b"") as (client, _, _):
        client.max_retries = 0
        await asyncio.gather(*(failure(client) for _ in range(20)))
        stats = client.usage_stats
        assert (stats["total_requests"], stats["successful_requests"], stats["failed_requests"]) == (20, 0, 20)
        assert (client.active_requests, client.queued_requests) == (0, 0)
