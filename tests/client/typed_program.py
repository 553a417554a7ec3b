"""A program that uses every public name of the client library. It is read by the type checker, and never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any, Literal, assert_type

from corral import (
    Answer,
    AsyncClient,
    AsyncJob,
    AuthenticationError,
    BadRequestError,
    CallTimeoutError,
    Chunk,
    CircuitOpenError,
    Client,
    ConfigurationError,
    ConnectionFailedError,
    CorralError,
    Embeddings,
    Job,
    JobCancelledError,
    JobError,
    JobEvent,
    JobFailedError,
    JobStatus,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    QueueFullError,
    RateLimitError,
    ResponseError,
    ServerError,
    StreamBrokenError,
    Timings,
    Usage,
    UsageStats,
)

MESSAGES = [{"role": "user", "content": "Why?"}]


def built() -> None:
    client = Client("http://host", api_key="k", model="m", timeout=3, headers={"a": "b"}, metadata={}, resources={})
    assert_type(client, Client)


def asking(client: Client) -> None:
    assert_type(client.chat("m", messages=MESSAGES, top_p=0.9), Answer)
    assert_type(client.generate("m", "Why?"), Answer)
    assert_type(client.completions("m", "Why?"), Answer)
    assert_type(client.stream_chat("m", messages=MESSAGES), Iterator[Chunk])
    assert_type(client("chat", messages=MESSAGES), Any)
    assert_type(client.make_post_request_ollama("/api/chat", {}), Any)
    assert_type(client.list_models(), list[dict[str, Any]])
    assert_type(client.create_ollama_endpoint_handler(), Callable[..., Awaitable[Answer]])
    assert_type(client.test_ollama_endpoint(), bool)
    assert_type(client.embed(["a"], "m"), Embeddings)


def jobs(client: Client) -> None:
    job = client.submit("Why?", priority="high")
    assert_type(job, Job)
    assert_type(client.job("x"), Job)
    assert_type(job.status(), JobStatus)
    assert_type(job.wait(3), JobStatus)
    assert_type(job.result(), Answer)
    assert_type(job.stream(from_="1.2"), Iterator[JobEvent])
    assert_type(job.cancel(), JobStatus)
    assert_type(job.request(), dict[str, Any])
    assert_type((job.id, job.request_id), tuple[str, str | None])


def many(client: Client) -> None:
    assert_type(client.submit_future("chat", messages=MESSAGES), Future[Answer])
    assert_type(client.map(["a"]), Iterator[Answer])
    assert_type(client.map(["a"], return_exceptions=True), Iterator[Answer | Exception])
    assert_type(client.jobs(status="queued"), Iterator[JobStatus])
    assert_type(client.cancel_all(everybody=True), int)


def attributes(client: Client) -> None:
    assert_type(client.usage_stats, UsageStats)
    assert_type(client.server, Literal["corral", "ollama"] | None)
    assert_type((client.base_url, client.ollama_api_url, client.circuit_state), tuple[str, str, str])
    assert_type((client.failure_count, client.active_requests, client.queued_requests), tuple[int, int, int])
    assert_type((client.metadata, client.resources), tuple[dict[str, Any], dict[str, Any]])
    assert_type((client.max_concurrent_requests, client.queue_size, client.max_retries), tuple[int, int, int])
    assert_type(client.failure_threshold, int)
    client.initial_retry_delay = client.backoff_factor = client.max_retry_delay = 3
    client.circuit_timeout = client.timeout = 3
    client.default_model = None
    client.reset_usage_stats()
    client.close()
    assert_type((client.PRIORITY_HIGH, client.PRIORITY_NORMAL, client.PRIORITY_LOW), tuple[int, int, int])
    answer = client.generate(prompt="Why?", priority=client.PRIORITY_LOW)
    assert_type(answer["usage"], Usage)
    assert_type(answer.get("timings"), Timings | None)
    with Client() as another:
        assert_type(another, Client)


async def followed(job: AsyncJob) -> None:
    assert_type(await job.status(), JobStatus)
    assert_type(await job.wait(3), JobStatus)
    assert_type(await job.result(3), Answer)
    assert_type(await job.cancel(), JobStatus)
    assert_type(await job.request(), dict[str, Any])
    assert_type(job.stream("1.2"), AsyncGenerator[JobEvent, None])
    assert_type((job.id, job.request_id), tuple[str, str | None])


async def asked(client: AsyncClient) -> None:
    assert_type(client.create_ollama_endpoint_handler(), Callable[..., Awaitable[Answer]])
    assert_type(client("chat", messages=MESSAGES), Any)
    assert_type(await client.chat("m", messages=MESSAGES), Answer)
    assert_type(await client.generate("m", "Why?"), Answer)
    assert_type(await client.completions("m", "Why?"), Answer)
    assert_type(client.stream_chat("m", messages=MESSAGES), AsyncIterator[Chunk])
    assert_type(await client.embed("a"), Embeddings)
    assert_type(await client.submit("a"), AsyncJob)
    assert_type(client.job("a"), AsyncJob)
    assert_type(await client.job("a").result(), Answer)
    assert_type(client.job("a").stream(), AsyncGenerator[JobEvent, None])
    assert_type(client.map(["a"]), AsyncGenerator[Answer, None])
    assert_type(client.jobs(), AsyncGenerator[JobStatus, None])
    assert_type(await client.cancel_all(), int)
    assert_type(await client.list_models(), list[dict[str, Any]])
    assert_type(await client.test_ollama_endpoint(), bool)
    assert_type(await client.make_post_request_ollama("/api/chat", {}), Any)
    await client.aclose()
    async with AsyncClient() as other:
        other.max_retries = 3


def errors(client: Client) -> None:
    try:
        client.generate(prompt="Why?")
    except CircuitOpenError as error:
        assert_type(error.retry_after_seconds, float)
    except StreamBrokenError as error:
        assert_type(error.text, str)
    except ResponseError as error:
        assert_type((error.status_code, error.message, error.body), tuple[int, str, bytes])
        assert_type(error.retry_after_seconds, float | None)
    except JobFailedError as error:
        assert_type((error.code, error.job), tuple[str, JobStatus | None])
    except (JobCancelledError, CorralError) as error:
        assert_type((error.request_id, error.attempts, error.job_id), tuple[str | None, int, str | None])


KINDS: list[type[CorralError]] = [
    AuthenticationError,
    BadRequestError,
    CallTimeoutError,
    ConfigurationError,
    ConnectionFailedError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    QueueFullError,
    RateLimitError,
    ServerError,
]
WHY: JobError = {"code": "x", "message": None}
