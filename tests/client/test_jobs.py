"""Against Corral a call is a job: it waits its turn, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from corral import (
    AsyncClient,
    BadRequestError,
    CallTimeoutError,
    JobCancelledError,
    JobFailedError,
    NotFoundError,
    NotSupportedError,
    ServerError,
    StreamBrokenError,
)
from service.api.context import LONG_LIVED
from service.simulated import Fault, FaultKind, SimulatedServer
from tests.client.test_streams import read
from tests.support.client_service import PNG, TOOL, service_for_clients
from tests.support.raw_server import Exchange, raw_server, whole
from tests.support.running import PATIENCE_SECONDS, QUICK, RunningService, service_in_process

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture
async def service() -> AsyncIterator[RunningService]:
    async with service_in_process(seats=2) as running:
        yield running


@pytest.fixture
async def client(service: RunningService) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.url) as client:
        yield client


def stall(service: RunningService, **fields: Any) -> Any:
    return service.ollama.arm(Fault(kind=FaultKind.STALL, endpoint="/api/chat", **fields))


async def ends(service: RunningService, status: str, number: int) -> None:
    """Wait until so many jobs or more have this status, and none is left that is not final."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = await statuses(service)
            if found.count(status) >= number and not {"queued", "processing"} & set(found):
                return


async def statuses(service: RunningService) -> list[str]:
    _, page = await service.call("GET", "/api/v1/prompts", params={"page_size": "100"})
    return [job["status"] for job in page["prompts"]]


async def test_an_answer_says_all_that_is_known_of_it(client: AsyncClient, service: RunningService) -> None:
    answer = await client.chat(messages=MESSAGES, max_tokens=3, temperature=0.5, request_id="test_123", top_p=0.9)
    assert client.server == "corral"
    assert len(answer["text"].split()) == answer["usage"]["completion_tokens"] == 3
    assert (answer["model"], answer["implementation_type"], answer["done_reason"]) == ("llama3.2", "(REAL)", "length")
    assert (answer["request_id"], answer["attempts"]) == ("test_123", 1)
    assert answer["timings"]["total_seconds"] >= 0
    [seen] = service.ollama.observations.seen
    assert json.loads(seen.body)["options"] == {"num_predict": 3, "temperature": 0.5, "top_p": 0.9}
    status, job = await service.call("GET", f"/api/v1/prompt/{answer['job_id']}/status")
    assert (status, job["status"], job["priority"]) == (200, "completed", "normal")


async def test_the_same_request_id_names_two_calls(client: AsyncClient) -> None:
    first, second = [await client.generate(prompt="hello", request_id="constant") for _ in range(2)]
    assert first["job_id"] != second["job_id"]
    once, again = [await client.generate(prompt="hello", idempotency_key="key") for _ in range(2)]
    assert once["job_id"] == again["job_id"]


async def test_the_priority_is_told_in_corrals_words(client: AsyncClient, service: RunningService) -> None:
    for priority, word in ((client.PRIORITY_HIGH, "high"), (1, "normal"), ("low", "low"), (None, "normal")):
        answer = await client.generate(prompt="hello", priority=priority)
        _, job = await service.call("GET", f"/api/v1/prompt/{answer['job_id']}/status")
        assert job["priority"] == word
        await client.generate(prompt="hello", priority=priority, logprobs=True, model="llama3.2")
        _, page = await service.call("GET", "/api/v1/prompts", params={"page_size": "1"})
        assert page["prompts"][0]["priority"] == word


async def test_what_the_prompts_api_does_not_take_goes_through_the_drop_in_route() -> None:
    async with service_for_clients() as service, AsyncClient(service.url) as client:
        answer = await client.chat(messages=MESSAGES, logprobs=True, top_logprobs=1)
        assert answer["logprobs"]
        assert (await client.generate(prompt="def f(", suffix="return", max_tokens=2))["text"]
        assert (await client.generate(prompt="raw", raw=True, max_tokens=2))["usage"]["completion_tokens"] == 2
        named = [{"role": "user", "content": "Hello", "name": "me"}]
        chunks = [chunk async for chunk in client.stream_chat(messages=named, max_tokens=2)]
        assert chunks[-1]["done"]
        one = await client.embed("one", "nomic-embed-text")
        two = await client.embed(["one", "two"], "nomic-embed-text")
        assert (len(one["embeddings"]), len(two["embeddings"])) == (1, 2)
        paths = [seen.endpoint for seen in service.ollama.observations.seen]
        assert paths == ["/api/chat", "/api/generate", "/api/generate", "/api/chat", "/api/embed", "/api/embed"]
        # Corral's own default model, which these routes do not know.
        assert {seen.model for seen in service.ollama.observations.seen} == {"llama3.2", "nomic-embed-text"}


async def test_images_tools_formats_and_thoughts_arrive() -> None:
    async with service_for_clients() as service, AsyncClient(service.url) as client:
        await client.generate(prompt="What is this?", images=[PNG], system="Be brief.")
        [seen] = service.ollama.observations.seen
        system, user = json.loads(seen.body)["messages"]
        assert (system, user["images"]) == ({"role": "system", "content": "Be brief."}, [PNG])
        assert (await client.chat(messages=MESSAGES, tools=[TOOL]))["tool_calls"][0]["function"]["name"] == "weather"
        assert (await client.chat("qwen3:4b", messages=MESSAGES, think=True))["thinking"]
        assert json.loads((await client.chat(messages=MESSAGES, format="json"))["text"]) is not None
        chunks = [chunk async for chunk in client.stream_chat(messages=MESSAGES, tools=[TOOL])]
        assert [chunk for chunk in chunks if "tool_calls" in chunk]
        chunks = [chunk async for chunk in client.stream_chat("qwen3:4b", messages=MESSAGES, think=True)]
        assert "".join(chunk.get("thinking", "") for chunk in chunks)


async def test_a_job_is_looked_at_waited_for_followed_and_read(client: AsyncClient, service: RunningService) -> None:
    held = service.stall(after_tokens=3)
    job = await client.submit("Why is the sky blue?", max_tokens=6, priority="high", options={"seed": 1})
    events = job.stream()
    text, seen = "", []
    async for event in events:
        seen.append(event["type"])
        text += event.get("text", "")
        if len(text.split()) == 3:
            break
    held.release()
    position = event["position"]
    await events.aclose()
    assert (await job.status())["priority"] == "high"
    with pytest.raises(NotFoundError) as unknown:
        await client.job("01890a5d-ac96-774b-bcce-b302099a8057").status()
    assert unknown.value.job_id == "01890a5d-ac96-774b-bcce-b302099a8057"
    # Another process goes on behind what was read.
    rest = [each async for each in client.job(job.id).stream(position)]
    answer = await job.result()
    assert text + "".join(each.get("text", "") for each in rest) == answer["text"]
    assert rest[-1]["type"] == "done"
    assert (await job.wait())["status"] == "completed"
    assert (await job.request())["options"] == {"seed": 1, "num_predict": 6}
    assert [each["id"] async for each in client.jobs(text="sky")] == [job.id]
    assert [each["id"] async for each in client.jobs(status="failed")] == []
    assert client.usage_stats["total_requests"] == client.usage_stats["successful_requests"] == 1
    assert client.usage_stats["total_completion_tokens"] == 6


async def test_waiting_for_a_job_may_end_and_leaves_the_job_alone(client: AsyncClient, service: RunningService) -> None:
    held = service.stall()
    job = await client.submit("hello")
    for late in (job.wait(timeout=0.02), job.result(timeout=0.02)):
        with pytest.raises(CallTimeoutError) as raised:
            await late
        assert raised.value.job_id == job.id
    waiting = asyncio.create_task(job.result())
    await service.look(job.id, lambda _: len(service.app[LONG_LIVED]) >= 1)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert (await job.status())["status"] == "processing"
    held.release()
    assert (await job.result())["text"]


async def test_how_a_job_ended_is_an_error(client: AsyncClient, service: RunningService) -> None:
    service.ollama.arm(Fault(kind=FaultKind.ERROR, endpoint="/api/generate", status=400, message="no such thing"))
    failed = await client.submit("hello")
    with pytest.raises(JobFailedError) as failure:
        await failed.result()
    assert failure.value.job is not None
    assert (failure.value.job_id, failure.value.code) == (failed.id, failure.value.job["error"]["code"])
    assert "no such thing" in str(failure.value)
    held = stall(service)
    running = asyncio.create_task(client.chat(messages=MESSAGES))
    await service.ollama.observations.until(lambda seen: seen.stalled == 1)
    # It runs before it is on disk, and is listed after that.
    while not (listed := [each async for each in client.jobs(status="processing")]):
        pass
    job_id = listed[0]["id"]
    assert (await client.job(job_id).cancel())["status"] == "cancelled"
    with pytest.raises(JobCancelledError) as cancelled:
        await running
    assert cancelled.value.job_id == job_id
    held.release()
    with pytest.raises(NotFoundError, match="nosuch"):
        await client.chat("nosuch", messages=MESSAGES)
    with pytest.raises(BadRequestError, match="prompt"):
        await client.submit("hello", tools=[TOOL])
    stats = client.usage_stats
    assert (stats["total_requests"], stats["failed_requests"]) == (3, 3)


async def test_a_call_that_is_given_up_cancels_its_job(client: AsyncClient, service: RunningService) -> None:
    stall(service, after_tokens=2)
    calls = 3

    async def is_late(ask: Callable[[float], Awaitable[Any]]) -> None:
        """Ask for an answer within some time, and within more where no job has come about in that."""
        nonlocal calls
        known, seconds = len(await statuses(service)), 0.05
        while len(await statuses(service)) == known:
            with pytest.raises(CallTimeoutError, match="max_wait_seconds"):
                await ask(seconds)
            calls, seconds = calls + 1, seconds * 2

    await is_late(lambda seconds: client.chat(messages=MESSAGES, max_wait_seconds=seconds))
    await ends(service, "cancelled", 1)
    whole = asyncio.create_task(client.chat(messages=MESSAGES))
    await service.ollama.observations.until(lambda seen: seen.stalled == 1)
    whole.cancel()
    with pytest.raises(asyncio.CancelledError):
        await whole
    stream = client.stream_chat(messages=MESSAGES)
    assert (await anext(stream))["text"]
    await stream.aclose()  # type: ignore[attr-defined]
    await ends(service, "cancelled", 3)
    await is_late(lambda seconds: _all(client.stream_chat(messages=MESSAGES, max_wait_seconds=seconds)))
    service.stall()
    direct = asyncio.create_task(client.generate(prompt="x", raw=True))
    await service.ollama.observations.until(lambda seen: seen.requests["/api/generate"] == 1 and seen.stalled == 1)
    direct.cancel()
    await asyncio.wait((direct,))
    await ends(service, "cancelled", 5)
    assert client.usage_stats["failed_requests"] == client.usage_stats["total_requests"] == calls
    assert client.active_requests == 0


async def test_two_hundred_calls_that_are_cancelled_at_random_moments_leave_no_job_running() -> None:
    chance = random.Random(19)
    async with service_in_process(seats=8) as service, AsyncClient(service.url) as client:
        client.max_concurrent_requests, client.queue_size = 40, 200
        service.ollama.arm(Fault(kind=FaultKind.PACE, endpoint="/api/chat", seconds=0.005))

        async def one() -> None:
            call = asyncio.create_task(client.chat(messages=MESSAGES))
            for _ in range(chance.randrange(60)):
                await service.call("GET", "/health")
            call.cancel()
            await asyncio.wait((call,))

        await asyncio.gather(*(one() for _ in range(200)))
        # No poll, no retry, nothing of the client's comes any more.
        _, page = await service.call("GET", "/api/v1/prompts", params={"page_size": "100", "status": "processing"})
        assert page["prompts"] == []
        _, page = await service.call("GET", "/api/v1/prompts", params={"page_size": "100", "status": "queued"})
        assert page["prompts"] == []
        assert client.active_requests == client.queued_requests == 0


async def test_an_answer_that_is_begun_anew_is_never_spliced(service: RunningService, client: AsyncClient) -> None:
    service.ollama.arm(Fault(kind=FaultKind.RESET, endpoint="/api/chat", after_tokens=4, times=1))
    stall(service, skip=1)
    chunks, error = await read(client)
    text = "".join(chunk["text"] for chunk in chunks)
    assert text
    assert isinstance(error, StreamBrokenError)
    assert error.text == text
    await ends(service, "cancelled", 1)
    seen: list[str] = []
    # Whoever begins to follow it after the fault has nothing to begin anew.
    for _ in range(20):
        if "restart" not in seen:
            seen = await _followed_over_a_fault(service, client)
    assert "restart" in seen


async def _followed_over_a_fault(service: RunningService, client: AsyncClient) -> list[str]:
    service.ollama.arm(Fault(kind=FaultKind.RESET, endpoint="/api/generate", after_tokens=4, times=1))
    job = await client.submit("hello")
    seen, text = [], ""
    async for event in job.stream():
        seen.append(event["type"])
        text = "" if event["type"] == "restart" else text + event.get("text", "")
    assert text == (await job.result())["text"]
    return list(seen)


async def test_the_wait_in_the_queue_is_no_silence(service: RunningService) -> None:
    """A timeout that is far shorter than the wait: polls, streams and drop-in calls all outlast it."""
    async with AsyncClient(service.url, timeout=0.5) as client:
        held = [service.stall(), stall(service)]
        for _ in range(2):
            await client.submit("hello")
        await service.ollama.observations.until(lambda seen: seen.stalled == 2)
        stream = client.stream_chat(messages=MESSAGES)
        calls: list[Any] = [
            asyncio.create_task(client.chat(messages=MESSAGES)),
            asyncio.create_task(client.generate(prompt="raw", raw=True)),
            asyncio.ensure_future(anext(stream)),
        ]
        polls = 0
        while polls < 120:
            polls += 1
            await service.call("GET", "/api/v1/prompts")
            await client.job((await anext(client.jobs()))["id"]).status()
        for one in held:
            one.release()
        answers = await asyncio.gather(*calls)
        assert all(answer["text"] for answer in answers)
        assert answers[0]["attempts"] == 1


async def test_map_yields_in_order_takes_what_it_needs_and_cancels_what_is_left(
    service: RunningService, client: AsyncClient
) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"prompt {taken}"

    answers = client.map(endless(), in_flight=4, max_tokens=2)
    for number in range(1, 6):
        answer = await anext(answers)
        assert len(answer["text"].split()) == 2
        _, body = await service.call("GET", f"/api/v1/prompt/{answer['job_id']}/request")
        assert body["messages"][0]["content"] == f"prompt {number}"
        assert taken <= number + 3
    stall(service)
    # The consumer stops: what is in flight is cancelled, nothing new is begun.
    running = asyncio.ensure_future(_all(answers))
    await service.ollama.observations.until(lambda seen: seen.stalled >= 2)
    running.cancel()
    await asyncio.wait((running,))
    await answers.aclose()
    asked = taken
    await ends(service, "cancelled", 2)
    assert taken == asked


async def _all(answers: AsyncIterator[Any]) -> list[Any]:
    return [answer async for answer in answers]


async def test_an_error_of_map_is_raised_in_its_place_or_is_the_item(client: AsyncClient) -> None:
    items: list[Any] = ["one", {"messages": MESSAGES, "max_tokens": 2}, {"prompt": "x", "model": "nosuch"}, {}, "five"]
    found = [each async for each in client.map(items, return_exceptions=True, max_tokens=3)]
    assert [type(each).__name__ for each in found] == ["dict", "dict", "NotFoundError", "ConfigurationError", "dict"]
    answers = client.map(items, max_tokens=3)
    assert (await anext(answers))["text"]
    assert (await anext(answers))["text"]
    with pytest.raises(NotFoundError):
        await anext(answers)
    assert client.active_requests == 0


async def test_a_bare_ollama_does_all_but_what_needs_a_queue() -> None:
    async with SimulatedServer(QUICK) as ollama, AsyncClient(ollama.url) as client:
        client.max_concurrent_requests = 2
        found = [answer async for answer in client.map((f"{n}" for n in range(9)), max_tokens=2)]
        assert len(found) == 9
        assert ollama.observations.peak_in_flight <= 2
        assert client.server == "ollama"
        refused = [
            client.submit("hello"),
            client.job("x").status(),
            anext(client.jobs()),
            client.cancel_all(),
            client.chat(messages=MESSAGES, not_before=1),
        ]
        for one in refused:
            with pytest.raises(NotSupportedError, match="bare Ollama"):
                await one


async def test_the_default_model_is_asked_for_again_after_the_service_was_away() -> None:
    default, is_away = "one", False
    asked: list[str] = []

    async def answer(exchange: Exchange) -> None:
        if is_away:
            await exchange.send(b"HTTP/1.1 503 x\r\nContent-Length: 2\r\n\r\n{}")
        elif exchange.path == "/health":
            await exchange.send(whole(b'{"service": "corral"}'))
        elif exchange.path == "/api/models":
            await exchange.send(whole(json.dumps({"models": [], "default": default}).encode()))
        else:
            asked.append(json.loads(exchange.body)["model"])
            await exchange.send(whole(b'{"model": "m", "response": "x", "done": true}'))

    async with raw_server(answer) as server, AsyncClient(server.url) as client:
        client.max_retries = 0
        await client.generate(prompt="x", raw=True)
        is_away = True
        with pytest.raises(ServerError):
            await client.generate(prompt="x", raw=True)
        default, is_away = "other", False
        await client.generate(prompt="x", raw=True)
    assert asked == ["one", "other"]
