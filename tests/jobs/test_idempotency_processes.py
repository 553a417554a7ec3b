"""Processes that share a database share the idempotency keys: whichever a request comes to, it is one job."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from service.api.context import LONG_LIVED
from service.simulated import ArmedFault, Fault, FaultKind
from tests.dropin.test_callers import until_listed
from tests.jobs.test_idempotency import CHAT, KEY, ask
from tests.jobs.test_several_processes import QUICK_TO_JUDGE, killable, process_at
from tests.support.databases import Place
from tests.support.processes import simulated_process
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process
from tests.support.signs_of_life import OFTEN, Reading

STALL = Fault(kind=FaultKind.STALL, after_tokens=3, times=1, endpoint="/api/chat")


@dataclass(frozen=True)
class Elsewhere:
    """Somebody who waits at the process ``two`` for a reply on which another works, and stalls."""

    two: RunningService
    stall: ArmedFault
    first: asyncio.Task[Any]
    second: Reading
    response: aiohttp.ClientResponse


async def listed(service: RunningService) -> int:
    """How many jobs there are, by the rows: what is counted may lag behind the other process for seconds."""
    return len((await service.call("GET", "/api/v1/prompts?page_size=100"))[1]["prompts"])


async def until_asked(service: RunningService) -> None:
    """Wait until somebody waits there for another process's reply."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not len(service.app[LONG_LIVED]):
            await service.call("GET", "/api/version")


@pytest.mark.parametrize(
    ("path", "name", "body"),
    [("/api/v1/prompt", "id", {"prompt": "Why?"}), ("/generate", "request_id", {"prompt": "Why?"})],
)
async def test_a_submission_to_both_is_one_job(postgres_place: Place, path: str, name: str, body: Any) -> None:
    url = postgres_place.config.url
    async with process_at(url) as one, process_at(url) as two:
        for service in (one, two):
            await ask(service, path, body, KEY)
        for number in range(10):
            key = {"Idempotency-Key": f"at once {number}"}
            replies = await asyncio.gather(*(ask(service, path, body, key) for service in (one, two, one, two)))
            assert len({json.loads(reply[2])[name] for reply in replies}) == 1
            assert sorted("Idempotent-Replayed" in reply[3] for reply in replies) == [False, True, True, True]
        assert (await ask(one, path, {"prompt": "Something else"}, KEY))[0] == 422
        assert (await ask(two, path, {"prompt": "Something else"}, KEY))[0] == 422
        await until_listed(one, "completed", 11)
        assert await listed(two) == 11


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_at_both_at_the_same_moment_is_one_job_and_one_reply(postgres_place: Place, stream: bool) -> None:
    url, body = postgres_place.config.url, {**CHAT, "stream": stream}
    async with process_at(url) as one, process_at(url) as two:
        for number in range(10):
            key = {"Idempotency-Key": f"at once {number}"}
            replies = await asyncio.gather(*(ask(service, "/api/chat", body, key) for service in (one, two, one, two)))
            assert {reply[:3] for reply in replies} == {replies[0][:3]}
            assert replies[0][0] == 200
            assert len({reply[3]["X-Job-Id"] for reply in replies}) == 1
        await until_listed(one, "completed", 10)
        assert await listed(two) == 10
        assert one.ollama.observations.answers + two.ollama.observations.answers == 10


async def test_another_body_at_the_same_moment_is_422_at_one_of_them(postgres_place: Place) -> None:
    url = postgres_place.config.url
    async with process_at(url) as one, process_at(url) as two:
        for number in range(10):
            key = {"Idempotency-Key": f"at once {number}"}
            replies = await asyncio.gather(
                ask(one, "/api/chat", CHAT, key), ask(two, "/api/chat", {**CHAT, "stream": False}, key)
            )
            assert sorted(reply[0] for reply in replies) == [200, 422]
        await until_listed(one, "completed", 10)
        assert await listed(two) == 10


async def test_who_waits_at_the_other_process_is_given_the_reply(postgres_place: Place) -> None:
    url = postgres_place.config.url
    async with process_at(url) as one, process_at(url) as two:
        stall = one.ollama.arm(STALL)
        first = asyncio.create_task(ask(one, "/api/chat", CHAT, KEY))
        await one.ollama.observations.until(lambda seen: seen.stalled == 1)
        await until_listed(two, "processing")
        # The other process waits until the reply is whole, and gives it from what is kept.
        second = asyncio.create_task(ask(two, "/api/chat", CHAT, KEY))
        assert (await ask(two, "/api/chat", {**CHAT, "stream": False}, KEY))[0] == 422
        stall.release()
        assert (await second)[:3] == (await first)[:3]
        assert (await second)[3]["Idempotent-Replayed"] == "true"
        assert "/api/chat" not in two.ollama.observations.requests


async def test_who_waits_at_the_other_process_is_answered_when_the_first_caller_leaves(postgres_place: Place) -> None:
    url = postgres_place.config.url
    async with process_at(url) as one, process_at(url) as two:
        one.ollama.arm(STALL)
        first = asyncio.create_task(ask(one, "/api/chat", CHAT, KEY))
        await one.ollama.observations.until(lambda seen: seen.stalled == 1)
        await until_listed(two, "processing")
        second = asyncio.create_task(ask(two, "/api/chat", CHAT, KEY))
        await until_asked(two)
        first.cancel()
        await asyncio.wait((first,))
        status, _, body, _ = await second
        assert status == 200
        assert body.count(b'"done":true') == 1
        assert (await ask(one, "/api/chat", CHAT, KEY))[2] == body
        await until_listed(one, "cancelled")
        await until_listed(one, "completed")


@asynccontextmanager
async def waiting_at_the_other(place: Place) -> AsyncIterator[Elsewhere]:
    """A call that stalls at one process, and the same call again at another."""
    url = place.config.url
    async with process_at(url) as one, service_in_process({"database.url": url, **OFTEN}) as two:
        stall = one.ollama.arm(STALL)
        first = asyncio.create_task(ask(one, "/api/chat", CHAT, KEY))
        await one.ollama.observations.until(lambda seen: seen.stalled == 1)
        await until_listed(two, "processing")
        async with (
            aiohttp.ClientSession(two.url) as session,
            session.post("/api/chat", json=CHAT, headers=KEY) as response,
            Reading("/api/chat", response) as second,
        ):
            yield Elsewhere(two, stall, first, second, response)
        first.cancel()
        await asyncio.wait((first,))


async def test_who_waits_at_the_other_process_is_sent_signs_of_life(postgres_place: Place) -> None:
    async with waiting_at_the_other(postgres_place) as it:
        await it.second.sees(signs=3)
        it.stall.release()
        await it.second.ends()
        assert (it.second.body, it.second.is_whole) == ((await it.first)[2], True)
        assert it.response.headers["Idempotent-Replayed"] == "true"
        assert "/api/chat" not in it.two.ollama.observations.requests


async def test_who_waits_there_and_is_refused_in_the_end_is_told_the_status(postgres_place: Place) -> None:
    async with waiting_at_the_other(postgres_place) as it:
        await it.second.sees(signs=1)
        await it.two.stop()
        await it.second.ends()
        error = json.loads(it.second.body)
        assert (error["status"], it.second.is_whole) == (503, False)
        assert "stopping" in error["error"]


@pytest.mark.parametrize("policy", ["cancel", "finish"])
async def test_who_waits_at_the_other_process_is_answered_when_the_first_is_killed(
    postgres_place: Place, tmp_path: Path, policy: str
) -> None:
    headers = {**KEY, "X-On-Disconnect": policy}
    async with (
        simulated_process(tmp_path, "--token-seconds", "60") as slow,
        killable(tmp_path / "other", postgres_place, slow) as victim,
        service_in_process({"database.url": postgres_place.config.url, **QUICK_TO_JUDGE}) as survivor,
    ):
        first = asyncio.create_task(ask(victim, "/api/chat", CHAT, headers))
        await until_listed(survivor, "processing")
        second = asyncio.create_task(ask(survivor, "/api/chat", CHAT, headers))
        await until_asked(survivor)
        victim.process.send(signal.SIGKILL)
        status, _, body, _ = await second
        assert status == 200
        assert body.count(b'"done":true') == 1
        with pytest.raises(aiohttp.ClientError):
            await first
        assert await listed(survivor) == (1 if policy == "finish" else 2)
