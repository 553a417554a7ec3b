"""The simulated Ollama gives out its runners as the real scheduler does, its starvation included (wire contract 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from service.simulated import (
    RECORDED_MODELS,
    Fault,
    FaultKind,
    Observations,
    SimulatedModel,
    SimulatedServer,
    generation,
)
from tests.support.simulation import TINY, json_lines, simulated_ollama

ONE_MODEL = replace(TINY, max_loaded_models=1)


async def _chat(session: aiohttp.ClientSession, model: str, prompt: str = "x", **changes: Any) -> tuple[int, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": False} | changes
    async with session.post("/api/chat", json=body) as response:
        return response.status, json_lines(await response.read()) if body["stream"] else await response.json()


async def _loaded(session: aiohttp.ClientSession) -> list[str]:
    async with session.get("/api/ps") as response:
        return [model["name"] for model in (await response.json())["models"]]


def _stalled(count: int) -> Callable[[Observations], bool]:
    return lambda seen: seen.stalled == count


def _arrived(least: int) -> Callable[[Observations], bool]:
    return lambda seen: len(seen.seen) >= least


async def test_seats_are_what_num_parallel_says_and_the_rest_waits_in_order() -> None:
    async with simulated_ollama(replace(TINY, parallel=2)) as (server, session):
        await _chat(session, "tiny1")
        stall = server.arm(Fault(kind=FaultKind.STALL))
        calls = [asyncio.create_task(_chat(session, "tiny1", f"prompt {number}")) for number in range(5)]
        await server.observations.until(lambda seen: seen.in_flight == 5 and seen.stalled == 2)
        assert server.observations.running["tiny1:latest"] == 2
        stall.release()
        await asyncio.gather(*calls)
        assert server.observations.peak_running["tiny1:latest"] == 2
        assert server.observations.loads == {"tiny1:latest": 1}


async def test_an_embedding_model_has_one_seat() -> None:
    settings = replace(TINY, parallel=4, token_seconds=0.001)
    async with simulated_ollama(settings) as (server, session):
        body = {"model": "embed", "input": ["a", "b", "c"]}
        replies = await asyncio.gather(*(session.post("/api/embed", json=body) for _ in range(4)))
        assert {reply.status for reply in replies} == {200}
        assert server.observations.peak_running["embed:latest"] == 1


async def test_swaps_cost_loads_and_resident_models_none() -> None:
    async with simulated_ollama(ONE_MODEL) as (server, session):
        for model in ("tiny1", "tiny2", "tiny1", "tiny1"):
            assert (await _chat(session, model))[0] == 200
        assert list(server.observations.load_order) == ["tiny1:latest", "tiny2:latest", "tiny1:latest"]
        assert await _loaded(session) == ["tiny1:latest"]
    async with simulated_ollama() as (server, session):
        for model in ("tiny1", "tiny2", "tiny1", "tiny2"):
            await _chat(session, model)
        assert server.observations.loads.total() == 2
        assert sorted(await _loaded(session)) == ["tiny1:latest", "tiny2:latest"]


async def test_models_fit_together_by_their_memory_when_it_is_limited() -> None:
    models = tuple(SimulatedModel(name, memory_bytes=size) for name, size in (("a", 6), ("b", 5), ("c", 4)))
    async with simulated_ollama(replace(TINY, models=models, memory_bytes=10)) as (server, session):
        await _chat(session, "a")
        await _chat(session, "c")
        assert sorted(await _loaded(session)) == ["a:latest", "c:latest"]
        await _chat(session, "b")
        assert sorted(await _loaded(session)) == ["b:latest", "c:latest"]
        assert server.observations.unloads == {"a:latest": 1}


async def test_one_load_holds_up_all_others_and_a_loading_model_is_not_listed() -> None:
    async with simulated_ollama() as (server, session):
        await _chat(session, "tiny1")
        load = server.arm(Fault(kind=FaultKind.LOAD_STALL, model="tiny2"))
        second = asyncio.create_task(_chat(session, "tiny2"))
        await server.observations.until(lambda seen: seen.loading == "tiny2:latest")
        third = asyncio.create_task(session.post("/api/embed", json={"model": "embed", "input": "x"}))
        await server.observations.until(lambda seen: seen.pending_loads == 1)
        assert await _loaded(session) == ["tiny1:latest"]
        assert (await _chat(session, "tiny1"))[0] == 200  # the fast path passes them by
        assert not second.done()
        assert not third.done()
        load.release()
        assert (await second)[0] == 200
        assert (await third).status == 200
        assert list(server.observations.load_order) == ["tiny1:latest", "tiny2:latest", "embed:latest"]


async def test_a_client_that_leaves_aborts_its_load_and_the_next_begins_from_nothing() -> None:
    async with simulated_ollama() as (server, session):
        load = server.arm(Fault(kind=FaultKind.LOAD_STALL))
        first = asyncio.create_task(_chat(session, "tiny1"))
        await server.observations.until(lambda seen: seen.loading is not None)
        second = asyncio.create_task(_chat(session, "tiny1"))
        await server.observations.until(lambda seen: seen.pending_loads == 1)
        first.cancel()
        await server.observations.until(lambda seen: seen.aborted_loads == 1 and seen.loading is not None)
        assert server.observations.loads.total() == 0
        load.release()
        assert (await second)[0] == 200
        assert server.observations.loads == {"tiny1:latest": 1}
        assert server.observations.closed_connections == 1


async def test_a_client_that_leaves_while_it_waits_is_skipped() -> None:
    async with simulated_ollama() as (server, session):
        load = server.arm(Fault(kind=FaultKind.LOAD_STALL, model="tiny1"))
        first = asyncio.create_task(_chat(session, "tiny1"))
        await server.observations.until(lambda seen: seen.loading is not None)
        second = asyncio.create_task(_chat(session, "tiny2"))
        await server.observations.until(lambda seen: seen.pending_loads == 1)
        second.cancel()
        await server.observations.until(lambda seen: seen.in_flight == 1)
        assert server.observations.pending_loads == 1  # it keeps its place until it is reached
        load.release()
        await first
        await server.observations.until(lambda seen: seen.pending_loads == 0)
        assert server.observations.loads == {"tiny1:latest": 1}


async def test_a_client_that_leaves_while_its_answer_is_made_frees_the_seat() -> None:
    async with simulated_ollama() as (server, session):
        server.arm(Fault(kind=FaultKind.STALL, after_tokens=3, times=1))
        first = asyncio.create_task(_chat(session, "tiny1", stream=True))
        await server.observations.until(_stalled(1))
        second = asyncio.create_task(_chat(session, "tiny1"))
        await server.observations.until(lambda seen: seen.in_flight == 2)
        first.cancel()
        assert (await second)[0] == 200
        assert await _loaded(session) == ["tiny1:latest"]


async def test_a_full_queue_is_503_and_does_not_bound_the_fast_path() -> None:
    async with simulated_ollama(replace(TINY, max_queue=1)) as (server, session):
        await _chat(session, "tiny1")
        load = server.arm(Fault(kind=FaultKind.LOAD_STALL))
        waiting = [asyncio.create_task(_chat(session, "tiny2"))]
        await server.observations.until(lambda seen: seen.loading is not None)
        waiting.append(asyncio.create_task(_chat(session, "tiny2")))
        await server.observations.until(lambda seen: seen.pending_loads == 1)
        message = "server busy, please try again.  maximum pending requests exceeded"
        assert await _chat(session, "tiny2") == (503, {"error": message})
        replies = await asyncio.gather(*(_chat(session, "tiny1") for _ in range(8)))
        assert {status for status, _ in replies} == {200}
        load.release()
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]


@pytest.mark.parametrize("keep_alive", [None, "5m"])
async def test_a_model_that_is_kept_busy_starves_the_one_that_waits_to_load(keep_alive: str | None) -> None:
    """Wire contract 4.3: while a runner is drained, new requests still reach it, and it never becomes idle."""
    changes = {} if keep_alive is None else {"keep_alive": keep_alive}
    async with simulated_ollama(replace(ONE_MODEL, parallel=2)) as (server, session):
        await _chat(session, "tiny1")
        current = server.arm(Fault(kind=FaultKind.STALL, model="tiny1"))
        busy = asyncio.create_task(_chat(session, "tiny1", **changes))
        await server.observations.until(_stalled(1))
        starved = asyncio.create_task(_chat(session, "tiny2"))
        await server.observations.until(lambda seen: seen.in_flight == 2 and seen.pending_loads == 0)
        for _ in range(20):  # the next request comes before the one that runs has ended, twenty times over
            following = server.arm(Fault(kind=FaultKind.STALL, model="tiny1"))
            current.remove()
            overlapping = asyncio.create_task(_chat(session, "tiny1", **changes))
            await server.observations.until(_stalled(2))
            current.release()
            assert (await busy)[0] == 200
            current, busy = following, overlapping
        assert not starved.done()
        assert server.observations.loads == {"tiny1:latest": 1}
        current.release()
        await busy
        if keep_alive is None:
            # Left alone for a moment, the drained runner goes, and the other gets its turn.
            assert (await starved)[0] == 200
            return
        # A keep_alive that came while it was drained has rewritten its expiry: it does not even go when it is idle.
        await server.observations.until(lambda seen: seen.in_flight == 1)
        assert (await _chat(session, "tiny1"))[0] == 200
        assert await _loaded(session) == ["tiny1:latest"]
        assert not starved.done()
        await _unload(session, "tiny1")
        assert (await starved)[0] == 200


async def _unload(session: aiohttp.ClientSession, model: str) -> Any:
    async with session.post("/api/generate", json={"model": model, "keep_alive": 0}) as response:
        return await response.json()


async def test_drained_first_the_same_two_models_never_starve_each_other() -> None:
    async with simulated_ollama(ONE_MODEL) as (server, session):
        for _ in range(3):
            for model in ("tiny1", "tiny2"):
                await asyncio.gather(*(_chat(session, model) for _ in range(4)))
                await _unload(session, model)
        assert server.observations.loads.total() == 6


async def test_an_unload_waits_for_those_who_run_answers_at_once_and_never_loads() -> None:
    async with simulated_ollama() as (server, session):
        assert (await _unload(session, "tiny1"))["done_reason"] == "unload"
        assert server.observations.loads.total() == 0
        stall = server.arm(Fault(kind=FaultKind.STALL, after_tokens=1))
        running = asyncio.create_task(_chat(session, "tiny1", stream=True))
        await server.observations.until(_stalled(1))
        assert (await _unload(session, "tiny1"))["done"] is True
        assert await _loaded(session) == ["tiny1:latest"]
        stall.release()
        assert (await running)[1][-1]["done"] is True
        await server.observations.until(lambda seen: seen.unloads.total() == 1)
        assert await _loaded(session) == []


async def test_keep_alive_decides_how_long_a_model_stays() -> None:
    async with simulated_ollama() as (server, session):
        await _chat(session, "tiny1", keep_alive=0)
        assert await _loaded(session) == []
        await _chat(session, "tiny1", keep_alive="10ms")
        await server.observations.until(lambda seen: seen.unloads.total() == 2)
        await _chat(session, "tiny1", keep_alive=-1)
        async with session.get("/api/ps") as response:
            assert (await response.json())["models"][0]["expires_at"] > "2200"


@pytest.mark.parametrize(
    ("options", "is_reloaded"),
    [
        ({"num_ctx": 512}, False),
        ({"num_ctx": 1024}, True),
        ({"num_batch": 64}, True),
        ({"num_gpu": -1}, False),
        ({"num_gpu": 7}, True),
        ({"num_thread": 3}, True),
        ({"main_gpu": 1}, True),
        ({"use_mmap": False}, True),
        ({"draft_num_predict": 2}, True),
        ({"temperature": 0.1, "seed": 7, "num_predict": 3, "stop": ["x"]}, False),
    ],
)
async def test_only_options_of_the_runner_reload_it(options: dict[str, Any], is_reloaded: bool) -> None:
    async with simulated_ollama() as (server, session):
        await _chat(session, "tiny1")
        await _chat(session, "tiny1", options=options)
        assert server.observations.loads.total() == (2 if is_reloaded else 1)


async def test_shift_reloads_and_v1_uses_the_automatic_context() -> None:
    async with simulated_ollama() as (server, session):
        await _chat(session, "tiny1")
        await _chat(session, "tiny1", shift=False)
        assert server.observations.loads.total() == 2
        await _chat(session, "tiny1", options={"num_ctx": 2000})
        async with session.post(
            "/v1/chat/completions", json={"model": "tiny1", "messages": [{"role": "user", "content": "x"}]}
        ) as response:
            assert response.status == 200
        assert server.observations.loads.total() == 4


async def test_names_of_the_same_weights_share_a_runner() -> None:
    async with simulated_ollama() as (server, session):
        await session.post("/api/copy", json={"source": "tiny1", "destination": "alias"})
        await _chat(session, "tiny1")
        status, reply = await _chat(session, "ALIAS:latest")
        assert (status, reply["model"]) == (200, "ALIAS:latest")
        assert server.observations.loads == {"tiny1:latest": 1}
        assert await _loaded(session) == ["tiny1:latest"]


async def test_a_load_that_fails_is_an_error_and_leaves_nothing_loaded() -> None:
    async with simulated_ollama() as (server, session):
        server.arm(Fault(kind=FaultKind.LOAD_ERROR, message="llama-server process has terminated", times=1))
        assert await _chat(session, "tiny1") == (500, {"error": "llama-server process has terminated"})
        assert await _loaded(session) == []
        assert (await _chat(session, "tiny1"))[0] == 200


async def test_a_load_takes_its_time() -> None:
    models = tuple(replace(model, load_seconds=3600) for model in RECORDED_MODELS)
    async with simulated_ollama(replace(TINY, models=models)) as (server, session):
        call = asyncio.create_task(_chat(session, "tiny1"))
        await server.observations.until(lambda seen: seen.loading is not None)
        assert (await _loaded(session), call.done()) == ([], False)
        call.cancel()
        await asyncio.wait((call,))


async def test_a_load_is_part_of_load_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated_ollama() as (server, session):
        # A clock by which a load takes a second, and nothing else takes any time.
        clock = SimpleNamespace(monotonic_ns=lambda: server.observations.loads.total() * 1_000_000_000)
        monkeypatch.setattr(generation, "time", clock)
        (_, cold), (_, warm) = await _chat(session, "tiny1"), await _chat(session, "tiny1")
        assert (cold["load_duration"], warm["load_duration"]) == (1_000_000_000, 1)


async def test_an_answer_without_end_keeps_its_seat_until_its_client_leaves() -> None:
    """Wire contract 9.6: `num_predict` 0 means without end."""
    async with simulated_ollama() as (server, session):
        body = {"model": "tiny1", "prompt": "x", "options": {"num_predict": 0}}
        async with session.post("/api/generate", json=body) as response:
            received = b""
            while received.count(b"\n") < 100:
                received += await response.content.readany()
            response.close()
        assert not any(line.get("done") for line in json_lines(received[: received.rindex(b"\n") + 1]))
        await server.observations.until(lambda seen: seen.in_flight == 0)


async def test_a_model_that_never_stops_is_cut_at_ten_contexts() -> None:
    async with simulated_ollama(replace(TINY, tokens=None, flush_each_token=False)) as (_, session):
        options = {"num_ctx": 64, "num_predict": -1}
        _, reply = await _chat(session, "tiny1", options=options)
        assert (reply["eval_count"], reply["done_reason"]) == (640, "length")


async def test_nothing_is_left_behind_when_clients_leave_at_any_moment() -> None:
    settings = replace(ONE_MODEL, parallel=2, token_seconds=0.0005, keep_alive_seconds=0.001)
    async with SimulatedServer(settings) as server, aiohttp.ClientSession(server.url) as session:
        calls = [asyncio.create_task(_chat(session, f"tiny{1 + number % 2}")) for number in range(60)]
        for number, call in enumerate(calls):
            if number % 3:
                await server.observations.until(_arrived(number // 2))
                call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await server.observations.until(lambda seen: seen.in_flight == 0)
        assert server.observations.running.total() == 0
        assert (await _chat(session, "tiny1"))[0] == 200
