"""Programs that end with calls under way: they end soon, whatever the service does, and say nothing."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from service.simulated import Fault, FaultKind, SimulatedServer
from tests.support.processes import PATIENCE_SECONDS, running_service
from tests.support.programs import HANGS_SECONDS, LONGEST_EXIT_SECONDS, STALLED, Program, program
from tests.support.running import QUICK

SYNC = """
client = Client(url)
client.max_concurrent_requests = 16
stream = client.stream_chat(messages=messages)
posted = client.make_post_request_ollama("/api/chat", post, stream=True)
job = client.submit(messages=messages)
news = job.stream()
assert next(stream)["text"] and next(posted)["message"] and next(news)["type"] == "status"
answers = client.map(["short", "stall", "stall", "stall"], in_flight=3)
assert next(answers)["text"]
future = client.submit_future(messages=messages)

def ask(call):
    try:
        call()
    except ConfigurationError as error:
        assert "closed" in str(error)

for call in (lambda: client.chat(messages=messages), lambda: list(stream), lambda: list(answers), job.wait, job.result):
    threading.Thread(target=ask, args=(call,)).start()
threading.Thread(target=ask, args=(lambda: client.generate(prompt="stall"),), daemon=True).start()
may_go_on()
"""
ASYNC = """
kept = []

async def main():
    client = AsyncClient(url)
    client.max_concurrent_requests = 16
    stream = client.stream_chat(messages=messages)
    posted = await client.make_post_request_ollama("/api/chat", post, stream=True)
    job = await client.submit(messages=messages)
    news = job.stream()
    for each in (stream, posted, news):
        await anext(each)
    answers = client.map(["short", "stall", "stall", "stall"], in_flight=3)
    await anext(answers)
    calls = (client.chat(messages=messages), job.wait(), job.result(), anext(stream))
    kept.extend([stream, answers, posted, *map(asyncio.ensure_future, calls)])
    await asyncio.to_thread(may_go_on)

asyncio.run(main())
"""
CALLS = 9 + 6
LOOKED_AT = 2
"""Jobs of both programs, and those among them that were submitted to be looked at."""

INTERRUPTED = {
    "a client": """
client = Client(url)
stream = client.stream_chat(messages=messages)
next(stream)
list(client.map(6 * ["stall"]))
""",
    "asyncio's": """
async def main():
    async with AsyncClient(url) as client:
        stream = client.stream_chat(messages=messages)
        await anext(stream)
        async for answer in client.map(6 * ["stall"]):
            pass
asyncio.run(main())
""",
}
CALLS_INTERRUPTED = 2 * 7


async def test_no_exit_hangs_whatever_is_under_way(tmp_path: Path) -> None:
    await _exits(tmp_path, HANGS_SECONDS)


@pytest.mark.long
async def test_each_exit_takes_less_than_five_seconds(tmp_path: Path) -> None:
    await _exits(tmp_path, LONGEST_EXIT_SECONDS)


async def _exits(folder: Path, longest_seconds: float) -> None:
    async with SimulatedServer(replace(QUICK, parallel=99)) as ollama, AsyncExitStack() as running:
        stall = ollama.arm(Fault(kind=FaultKind.STALL, prompt=STALLED, after_tokens=2))
        backend = json.dumps([{"name": "a", "url": ollama.url, "concurrency": 99}])
        service = await running.enter_async_context(running_service(folder, CORRAL_BACKENDS=backend))

        async def begun(*texts: str) -> list[Program]:
            return [await running.enter_async_context(program(text, service.url)) for text in texts]

        first, second, third = [await begun(SYNC, ASYNC) for _ in range(3)]
        interrupted = await begun(*INTERRUPTED.values())
        for one in (*first, *second, *third):
            assert await one.says() == "ready"
        await ollama.observations.until(lambda seen: seen.stalled == 3 * CALLS + CALLS_INTERRUPTED)
        assert await _ended(first, longest_seconds) == [(0, "")] * 2
        go_on = 2 * CALLS + LOOKED_AT + CALLS_INTERRUPTED
        await _become(service.url, {"cancelled": CALLS - LOOKED_AT, "processing": go_on})

        service.process.send(signal.SIGSTOP)
        for one in interrupted:
            one.interrupt()
        assert await _ended(second, longest_seconds) == [(0, "")] * 2
        for status, said in await _ended(interrupted, longest_seconds):
            assert (status, said.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt"), said
            assert not re.search("ignored|destroyed|never", said), said

        await service.process.kill()
        assert await _ended(third, longest_seconds) == [(0, "")] * 2
        stall.release()


async def test_no_exit_waits_for_an_address_that_is_looked_up() -> None:
    text = """
    import socket
    looking = threading.Event()
    def look_up(*_, **__):
        looking.set()
        threading.Event().wait()
    socket.getaddrinfo = look_up
    future = Client(url).submit_future(messages=messages)
    looking.wait()
    may_go_on()
    """
    async with program(text, "http://corral.example") as running:
        assert await running.says() == "ready"
        assert await _ended([running]) == [(0, "")]


async def _ended(programs: list[Program], longest_seconds: float = HANGS_SECONDS) -> list[tuple[int, str]]:
    for one in programs:
        one.go_on()
    return list(await asyncio.gather(*(one.ends(longest_seconds) for one in programs)))


async def _become(url: str, wanted: dict[str, int]) -> None:
    """Wait until so many of the service's jobs stand so; the others are completed."""
    found: Counter[str] = Counter()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), aiohttp.ClientSession() as session:
            while found != wanted:
                async with session.get(f"{url}/api/v1/prompts?page_size=100") as reply:
                    found = Counter(job["status"] for job in (await reply.json())["prompts"])
                del found["completed"]
    except TimeoutError:
        raise AssertionError(f"they are {found}, not {wanted}") from None
