"""What the client library adds to a call, and how fast it asks many prompts."""

from __future__ import annotations

import asyncio
import time

import httpx2

from corral import Client
from tests.bench.load import LoadError
from tests.bench.measuring import Bench, by_turns, compared, in_thread
from tests.bench.scenarios.batch import PROMPTS, ROUNDS, SEATS, threads
from tests.bench.table import Figure, added_milliseconds, at_least
from tests.support.processes import running_service, simulated_process

MODEL = "llama3.2"
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
WARM_UP, CALLS = 20, 150
ADDED_MS = 1.5


async def measure(bench: Bench) -> list[Figure]:
    """A chat against its two requests by hand, and a map over prompts against five threads of Ollama's own client."""
    with bench.new_folder() as folder:
        async with (
            simulated_process(folder, "--tokens", "20", "--load-seconds", "0", "--parallel", "4") as quick,
            running_service(folder, OLLAMA_URL=quick) as service,
        ):
            figures = await asyncio.to_thread(_chat, service.url)
        paced = ("--tokens", "20", "--token-seconds", "0.005", "--load-seconds", "0", "--parallel", str(SEATS))
        async with simulated_process(folder, *paced) as slow:
            by_client, by_threads = await by_turns(
                [in_thread(_map_rate, slow), in_thread(threads, slow)], rounds=ROUNDS
            )
    rate, below, ratio = compared(by_client, by_threads)
    what = f"map of {PROMPTS:,} prompts; against {SEATS} threads of Ollama's own client"
    return [*figures, at_least(what, rate, below, ratio, 1.0, "/s")]


def _chat(url: str) -> list[Figure]:
    by_hand: list[float] = []
    by_client: list[float] = []
    with Client(url, model=MODEL) as client, httpx2.Client(base_url=url, timeout=60) as http:
        for number in range(WARM_UP + CALLS):
            times = (_hand_ms(http), _client_ms(client))
            if number >= WARM_UP:
                by_hand.append(times[0])
                by_client.append(times[1])
    what = 'a chat through the client library, where "directly" is its two requests by hand'
    return added_milliseconds(what, by_hand, [by_client], ADDED_MS)


def _hand_ms(http: httpx2.Client) -> float:
    begun = time.perf_counter()
    job = http.post("/api/v1/prompt", json={"model": MODEL, "messages": MESSAGES}).json()
    result = http.get(f"/api/v1/prompt/{job['id']}/result?wait=30").json()
    if not result.get("result"):
        raise LoadError(f"no result: {result}")
    return (time.perf_counter() - begun) * 1000


def _client_ms(client: Client) -> float:
    begun = time.perf_counter()
    client.chat(messages=MESSAGES)
    return (time.perf_counter() - begun) * 1000


def _map_rate(url: str) -> float:
    """Answers a second."""
    with Client(url, model=MODEL) as client:
        client.max_concurrent_requests = SEATS
        begun = time.perf_counter()
        number = sum(1 for _ in client.map(f"prompt {number}" for number in range(PROMPTS)))
        return number / (time.perf_counter() - begun)
