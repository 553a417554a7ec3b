"""What a waiting caller may ask for and is told, and what becomes of its job when it leaves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from service.simulated import Fault, FaultKind, SimulatedModel, SimulatedSettings
from tests.support.drop_in import seen
from tests.support.running import PATIENCE_SECONDS, QUICK, RunningService, service_in_process

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


def chat(*, stream: bool, content: str = "Why is the sky blue?") -> dict[str, Any]:
    return {"model": "llama3.2", "messages": [{"role": "user", "content": content}], "stream": stream}


async def newest(service: RunningService) -> dict[str, Any]:
    """The newest job of the list."""
    _, answer = await service.call("GET", "/api/v1/prompts")
    return dict(answer["prompts"][0])


async def until_listed(service: RunningService, status: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until so many jobs have this status."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            _, answer = await service.call("GET", "/api/v1/prompts", params={"status": status, "page_size": "100"})
            if len(answer["prompts"]) == count:
                return list(answer["prompts"])


async def leaving(service: RunningService, body: dict[str, Any], path: str = "/api/chat", **headers: str) -> None:
    """A caller on a connection of its own that is cancelled from outside, which closes it."""
    async with aiohttp.ClientSession(service.url) as session, session.post(path, json=body, headers=headers) as reply:
        await reply.read()


async def leave(caller: asyncio.Task[None]) -> None:
    caller.cancel()
    await asyncio.wait((caller,))


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
async def test_every_reply_of_a_job_names_it_and_its_place(path: str) -> None:
    async with service_in_process() as service:
        for stream in (True, False):
            async with service.session.post(path, json=chat(stream=stream)) as reply:
                await reply.read()
                job = await service.until(reply.headers["X-Job-Id"], "completed")
                assert job["prompt"] == "Why is the sky blue?"
                assert reply.headers["X-Queue-Position"].isdigit()
        async with service.session.post(path, json={**chat(stream=True), "model": "nosuch"}) as reply:
            assert reply.status == 404
            assert "X-Job-Id" in reply.headers


async def test_priority_and_deadline_are_taken_from_headers() -> None:
    async with service_in_process(seats=1) as service:
        stall = service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=1, times=1, endpoint="/api/chat"))
        first = asyncio.create_task(leaving(service, chat(stream=True)))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        headers = {"X-Priority": "low", "X-Job-Deadline-Seconds": "0.05"}
        async with service.session.post("/api/chat", json=chat(stream=False), headers=headers) as reply:
            assert reply.status == 504
            assert (await reply.json())["error"] == "still queued at its deadline"
            assert reply.headers["X-Queue-Position"] == "1"
            job = await service.until(reply.headers["X-Job-Id"], "failed")
        assert job["priority"] == "low"
        stall.release()
        await first
        for name, value in (("X-Priority", "urgent"), ("X-Job-Deadline-Seconds", "soon")):
            async with service.session.post("/v1/chat/completions", json=CHAT, headers={name: value}) as reply:
                assert reply.status == 400
                assert (await reply.json())["error"]["param"] == name


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_that_leaves_takes_its_running_job_along(stream: bool) -> None:
    async with service_in_process() as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3))
        caller = asyncio.create_task(leaving(service, chat(stream=stream)))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        await leave(caller)
        await service.ollama.observations.until(lambda seen: seen.closed_connections == 1)
        (job,) = await until_listed(service, "cancelled")
        assert job["error"]["code"] == "disconnected"


async def test_a_caller_that_leaves_the_queue_takes_its_job_along() -> None:
    async with service_in_process(seats=1) as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=1, times=1, endpoint="/api/chat"))
        first = asyncio.create_task(leaving(service, chat(stream=True)))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        second = asyncio.create_task(leaving(service, chat(stream=True, content="second")))
        await until_listed(service, "queued")
        await leave(second)
        (job,) = await until_listed(service, "cancelled")
        assert job["prompt"] == "second"
        assert service.ollama.observations.prompts == ["Why is the sky blue?"]
        await leave(first)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_may_leave_its_job_to_be_finished(stream: bool) -> None:
    async with service_in_process() as service:
        stall = service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3))
        caller = asyncio.create_task(leaving(service, chat(stream=stream), **{"X-On-Disconnect": "finish"}))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        await leave(caller)
        stall.release()
        (job,) = await until_listed(service, "completed")
        _, result = await service.call("GET", f"/api/v1/prompt/{job['id']}/result")
        assert result["completion_tokens"] == 20


async def test_a_load_outlives_the_caller_that_began_it() -> None:
    async with service_in_process() as service:
        stall = service.ollama.arm(Fault(kind=FaultKind.LOAD_STALL))
        caller = asyncio.create_task(leaving(service, chat(stream=True)))
        await service.ollama.observations.until(lambda seen: seen.loading is not None)
        await leave(caller)
        (job,) = await until_listed(service, "cancelled")
        assert job["error"]["code"] == "disconnected"
        stall.release()
        # The seat is kept until the first byte; then the connection is closed, and the model is there for the next.
        await service.ollama.observations.until(lambda seen: seen.in_flight == 0)
        assert service.ollama.observations.aborted_loads == 0
        status, _ = await service.call("POST", "/api/chat", chat(stream=False))
        assert status == 200
        assert service.ollama.observations.loads.total() == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_job_that_somebody_cancels_is_499_for_its_caller(stream: bool) -> None:
    async with service_in_process(seats=1) as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, times=1, endpoint="/api/chat"))
        first = asyncio.create_task(leaving(service, chat(stream=True)))
        await service.ollama.observations.until(lambda seen: seen.stalled == 1)
        second = asyncio.create_task(service.call("POST", "/v1/chat/completions", chat(stream=stream)))
        (job,) = await until_listed(service, "queued")
        await service.call("DELETE", f"/api/v1/prompt/{job['id']}")
        status, answer = await second
        assert (status, answer["error"]["message"]) == (499, "request canceled")
        await leave(first)


async def test_a_stream_whose_job_somebody_cancels_ends_with_an_error() -> None:
    async with service_in_process() as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3))
        async with service.session.post("/api/chat", json=chat(stream=True)) as reply:
            lines = [json.loads(await reply.content.readline()) for _ in range(3)]
            assert all(not line["done"] for line in lines)
            await service.call("DELETE", f"/api/v1/prompt/{reply.headers['X-Job-Id']}")
            assert json.loads(await reply.content.readline()) == {"error": "request canceled"}
            with pytest.raises(aiohttp.ClientPayloadError):
                await reply.content.readline()


async def test_when_the_retries_have_run_out_without_a_reply_the_caller_gets_503() -> None:
    options = {"retry.initial_seconds": 0.001, "retry.cap_seconds": 0.001, "retry.max_retries": 2}
    async with service_in_process(options) as service:
        service.ollama.arm(Fault(kind=FaultKind.HANG_UP, endpoint="/v1/chat/completions"))
        async with service.session.post("/v1/chat/completions", json=chat(stream=True)) as reply:
            assert reply.status == 503
            assert reply.headers["x-should-retry"] == "false"
            assert (await reply.json())["error"]["type"] == "api_error"
            assert (await service.until(reply.headers["X-Job-Id"], "failed"))["attempt"] == 3


async def test_a_reply_that_was_retried_says_that_it_need_not_be_and_a_busy_one_does_not() -> None:
    options = {
        "retry.initial_seconds": 0.001,
        "retry.cap_seconds": 0.001,
        "queue.hold_busy": False,
        "breaker.failure_threshold": 100,
    }
    async with service_in_process(options) as service:
        for message, expected in (("CUDA error", "false"), ("server busy, please try again.  maximum", None)):
            fault = service.ollama.arm(
                Fault(kind=FaultKind.ERROR, status=503, message=message, endpoint="/v1/chat/completions")
            )
            async with service.session.post("/v1/chat/completions", json=CHAT) as reply:
                assert (reply.status, reply.headers.get("x-should-retry")) == (503, expected)
            fault.remove()


async def test_a_failed_attempt_leaves_no_trace_in_the_reply() -> None:
    options = {"retry.initial_seconds": 0.001, "retry.cap_seconds": 0.001}
    async with service_in_process(options) as service:
        for kind in (FaultKind.HANG_UP, FaultKind.ERROR, FaultKind.RUNNER_KILLED):
            service.ollama.arm(Fault(kind=kind, times=1, endpoint="/api/chat"))
            async with service.session.post("/api/chat", json=chat(stream=True)) as reply:
                lines = [json.loads(line) for line in (await reply.read()).splitlines()]
            assert len(lines) == 21, kind
            assert lines[-1]["done"] is True


async def test_an_unload_loads_nothing_and_makes_no_job() -> None:
    async with service_in_process() as service:
        for body in ({"model": "llama3.2", "keep_alive": 0}, {"model": "llama3.2", "prompt": "", "keep_alive": "0s"}):
            status, answer = await service.call("POST", "/api/generate", body)
            assert (status, answer["done_reason"]) == (200, "unload")
        assert service.ollama.observations.loads.total() == 0
        assert (await service.call("GET", "/api/v1/prompts"))[1]["total"] == 0
        await service.call("POST", "/api/generate", {"model": "llama3.2"})
        assert service.ollama.observations.loads.total() == 1
        await service.call("POST", "/api/chat", {"model": "LLAMA3.2", "messages": [], "keep_alive": 0})
        assert (await service.call("GET", "/api/ps"))[1] == {"models": []}


async def test_a_model_that_is_nowhere_drains_nothing_and_is_refused_by_ollama() -> None:
    settings = SimulatedSettings(models=(SimulatedModel("llama3.2"),), parallel=4, max_loaded_models=1)
    async with service_in_process(settings=settings) as service:
        service.ollama.arm(Fault(kind=FaultKind.STALL, after_tokens=3))
        busy = [asyncio.create_task(leaving(service, chat(stream=True, content=f"{number}"))) for number in range(2)]
        await service.ollama.observations.until(lambda seen: seen.stalled == 2)
        # With two answers under way, whose end nobody waits for.
        status, answer = await service.call("POST", "/api/chat", {**CHAT, "model": "nosuch"})
        assert (status, answer) == (404, {"error": "model 'nosuch' not found"})
        busy.append(asyncio.create_task(leaving(service, chat(stream=True, content="third"))))
        await service.ollama.observations.until(lambda seen: seen.stalled == 3)
        for caller in busy:
            await leave(caller)


async def test_a_model_that_was_pulled_a_moment_ago_is_used() -> None:
    async with service_in_process(settings=QUICK) as service:
        async with aiohttp.ClientSession(service.ollama.url) as direct:
            await direct.post("/api/copy", json={"source": "llama3.2", "destination": "brand-new"})
        status, answer = await service.call("POST", "/api/chat", {**CHAT, "model": "Brand-New", "stream": False})
        assert (status, answer["model"]) == (200, "Brand-New")


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
async def test_vectors_beyond_the_bound_are_refused_for_good_by_a_message_that_helps(path: str) -> None:
    settings = SimulatedSettings(models=(SimulatedModel("embed", ("embedding",)),), parallel=8)
    body = {"model": "embed", "input": ["text"] * 100}
    async with service_in_process({"output.max_bytes": 5_000}, settings) as service:
        for headers in ({}, {"Idempotency-Key": "once"}, {"Idempotency-Key": "once"}):
            async with service.session.post(path, json=body, headers=headers) as reply:
                error = (await reply.json())["error"]
                assert (reply.status, reply.headers["x-should-retry"]) == (400, "false")
                job = await service.until(reply.headers["X-Job-Id"], "failed")
            message = error if path == "/api/embed" else error["message"]
            assert "holds more than 5000 numbers (output.max_bytes)" in message
            assert "ask for less at once" in message
            assert path == "/api/embed" or error["type"] == "invalid_request_error"
            assert (job["attempt"], job["error"]) == (1, {"code": "output_too_large", "message": message})
        assert service.ollama.observations.requests[path] == 2
        few, _ = await service.call("POST", path, {**body, "input": ["text"] * 10})
        assert few == 200


async def test_a_stream_beyond_the_bound_ends_with_what_was_met() -> None:
    async with service_in_process({"output.max_bytes": 5_000}) as service:
        service.ollama.arm(Fault(kind=FaultKind.LONG_LINE, after_tokens=2, size=6_000, endpoint="/api/chat"))
        reply = await seen(service.session, "POST", "/api/chat", chat(stream=True))
        assert not reply.is_whole
        assert "longer than 5000 bytes (output.max_bytes)" in json.loads(reply.body.splitlines()[-1])["error"]
