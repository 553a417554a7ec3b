"""The service is killed and started again under its clients: nothing is lost, and nothing is asked twice."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from corral import AsyncClient, CircuitOpenError, ConnectionFailedError
from tests.bench.processes import free_port
from tests.support.processes import Service, running_service, simulated_process

Ask = Callable[[AsyncClient, list[str], Callable[[], None]], Awaitable[list[str]]]
"""Asks all prompts, tells whenever an answer has come, and returns the answers."""


async def by_chat(client: AsyncClient, prompts: list[str], came: Callable[[], None]) -> list[str]:
    async def one(prompt: str) -> str:
        answer = await client.chat(messages=[{"role": "user", "content": prompt}])
        came()
        return answer["text"]

    return list(await asyncio.gather(*map(one, prompts)))


async def by_stream(client: AsyncClient, prompts: list[str], came: Callable[[], None]) -> list[str]:
    async def one(prompt: str) -> str:
        job, text = await client.submit(messages=[{"role": "user", "content": prompt}]), ""
        async for event in job.stream():
            # What came before a restart is worth nothing.
            text = "" if event["type"] == "restart" else text + event.get("text", "")
        came()
        return text

    return list(await asyncio.gather(*map(one, prompts)))


async def by_map(client: AsyncClient, prompts: list[str], came: Callable[[], None]) -> list[str]:
    texts = []
    async for answer in client.map(prompts, in_flight=16):
        texts += [answer["text"]]
        came()
    return texts


WAYS: dict[str, Ask] = {"chat": by_chat, "stream": by_stream, "map": by_map}


@pytest.mark.parametrize("way", WAYS)
async def test_a_service_that_is_killed_under_its_clients_answers_each_prompt_once(tmp_path: Path, way: str) -> None:
    await kill_under(WAYS[way], tmp_path, rounds=3)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", WAYS)
async def test_however_often_it_is_killed_each_prompt_is_answered_once(tmp_path: Path, way: str) -> None:
    await kill_under(WAYS[way], tmp_path, rounds=20)


async def kill_under(ask: Ask, folder: Path, rounds: int) -> None:
    """In each round the service dies once, at a random moment, and is started again on its port."""
    port, number = free_port(), 24
    asked: list[str] = []
    options = ("--answer", "echo", "--token-seconds", "0.01", "--load-seconds", "0", "--parallel", "4")
    async with simulated_process(folder, *options) as ollama, AsyncClient(f"http://127.0.0.1:{port}") as client:
        client.max_concurrent_requests, client.queue_size = 8, number
        # Several calls that are to be submitted while nobody listens would open the circuit together.
        client.failure_threshold = 1000
        client.initial_retry_delay, client.max_retry_delay, client.max_retries = 0.2, 0.5, 200
        for round_ in range(rounds):
            chance = random.Random(round_)
            prompts = [f"round {round_} prompt {each} says these words" for each in range(number)]
            asked += prompts
            moment, answers = chance.randrange(1, number - 10), 0
            is_time = asyncio.Event()

            def came(moment: int = moment, is_time: asyncio.Event = is_time) -> None:
                nonlocal answers
                answers += 1
                if answers >= moment:
                    is_time.set()

            async with _killed_when(is_time, folder, ollama, port):
                assert await ask(client, prompts, came) == prompts
        assert client.server == "corral"
    _check_rows(folder / "queue.db", asked)


async def test_by_default_calls_that_begin_while_the_service_is_away_fail_and_those_under_way_do_not(
    tmp_path: Path,
) -> None:
    port, is_back, now = free_port(), asyncio.Event(), 1_000.0
    settings = {"CORRAL_SERVER__PORT": str(port)}
    options = ("--answer", "echo", "--token-seconds", "0.1", "--load-seconds", "0", "--parallel", "4")
    under_way = [f"under way {number}, with these words" for number in range(3)]
    async with simulated_process(tmp_path, *options) as ollama, AsyncClient(f"http://127.0.0.1:{port}") as client:
        client.max_concurrent_requests = 20
        following: list[asyncio.Task[Any]] = []

        async def sleep(_: float) -> None:
            # Those that follow a job come back when the service does; for the others no time passes.
            await (is_back.wait() if asyncio.current_task() in following else asyncio.sleep(0))

        client._parts.time.clock, client._parts.time.sleep = lambda: now, sleep
        async with running_service(tmp_path, OLLAMA_URL=ollama, **settings) as first:
            following += [asyncio.create_task(client.generate(prompt=prompt)) for prompt in under_way]
            while len([job async for job in client.jobs(status="processing")]) < len(under_way):
                pass
            await _die(first)
        away = [asyncio.create_task(client.generate(prompt=f"while it is away {number}")) for number in range(8)]
        await asyncio.wait(away)
        assert {type(call.exception()) for call in away} <= {ConnectionFailedError, CircuitOpenError}
        assert isinstance(away[0].exception(), ConnectionFailedError)
        assert client.circuit_state == "OPEN"
        with pytest.raises(CircuitOpenError) as refused:
            await client.generate(prompt="too soon")
        assert refused.value.retry_after_seconds == client.circuit_timeout
        async with running_service(tmp_path, OLLAMA_URL=ollama, **settings):
            is_back.set()
            assert [answer["text"] for answer in await asyncio.gather(*following)] == under_way
            now += client.circuit_timeout
            assert (await client.generate(prompt="later"))["text"] == "later"
            assert client.circuit_state == "CLOSED"
    _check_rows(tmp_path / "queue.db", [*under_way, "later"])


@asynccontextmanager
async def _killed_when(is_time: asyncio.Event, folder: Path, ollama: str, port: int) -> AsyncIterator[None]:
    """A service that is killed at that moment, and another that takes its place until the end of the block."""
    listens, over = asyncio.Event(), asyncio.Event()
    settings = {"OLLAMA_URL": ollama, "CORRAL_SERVER__PORT": str(port)}

    async def run() -> None:
        async with running_service(folder, **settings) as first:
            listens.set()
            await is_time.wait()
            await _die(first)
        async with running_service(folder, **settings):
            await over.wait()

    running = asyncio.create_task(run())
    try:
        await listens.wait()
        yield
        assert is_time.is_set()
    finally:
        over.set()
        await running


async def _die(service: Service) -> None:
    await service.process.kill()


def _check_rows(path: Path, asked: list[str]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT bodies.prompt, jobs.status FROM jobs JOIN bodies ON bodies.seq = jobs.seq"
        ).fetchall()
    assert Counter(rows) == Counter((prompt, "completed") for prompt in asked)
