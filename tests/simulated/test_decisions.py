"""`/v1/systemone` of the simulated Ollama answers with probabilities, in the native shape (wire contract 1.7)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from service.simulated import RECORDED_MODELS, Fault, FaultKind, SimulatedModel, busy
from tests.support.simulation import TINY, simulated_ollama

PATH = "/v1/systemone"
MODELS = (*RECORDED_MODELS, SimulatedModel("nimble", ("decision",), family="lfm2"))
SETTINGS = replace(TINY, models=MODELS, version="0.40.0", parallel=4)
ASKED: dict[str, Any] = {
    "model": "nimble",
    "state": {"ticket": "Our checkout has returned errors since nine."},
    "questions": {
        "label": {"type": "choice", "instructions": "Which?", "criteria": {"bug": "Errors", "billing": "Payments"}},
        "urgent": {"type": "noul", "instructions": "Is it urgent?"},
        "anger": {"type": "score", "instructions": "How angry?", "criteria": ["calm", "annoyed", "furious"]},
    },
}


async def _decide(version: str = "0.40.0", **changes: Any) -> tuple[int, Any]:
    settings = replace(SETTINGS, version=version)
    async with simulated_ollama(settings) as (_, session), session.post(PATH, json=ASKED | changes) as response:
        body = await response.read()
        return response.status, json.loads(body) if response.content_type == "application/json" else body.decode()


async def test_each_question_is_answered_by_its_type() -> None:
    status, reply = await _decide()
    assert (status, reply["model"], list(reply["answers"])) == (200, "nimble", ["label", "urgent", "anger"])
    label, urgent, anger = reply["answers"].values()
    assert label["choice"] in ("bug", "billing")
    assert sum(label["probabilities"].values()) == pytest.approx(1, abs=0.001)
    assert 0 < urgent["noul"] < 1
    assert (0 <= anger["score"] <= 2, anger["legend"]["2"]) == (True, "furious")
    assert (reply["usage"]["input_tokens"] > 0, reply["usage"]["output_tokens"]) == (True, 3)
    assert await _decide() == (status, reply)


@pytest.mark.parametrize("version", ["0.24.0", "0.33.0", "0.34.9"])
async def test_before_0_35_there_is_no_such_route(version: str) -> None:
    assert await _decide(version) == (404, "404 page not found")


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"model": ""}, 400, "model is required"),
        ({"model": "nosuch"}, 404, "model 'nosuch' not found"),
        ({"model": "tiny1"}, 400, '"tiny1" does not support decision'),
        ({"state": 5}, 400, "state must be"),
        ({"questions": {}}, 400, "1 to 64"),
        ({"questions": {str(number): {"type": "noul"} for number in range(65)}}, 400, "1 to 64"),
        ({"questions": {"x": {"type": "essay"}}}, 400, 'question "x"'),
        ({"questions": {"x": {"type": "choice", "criteria": {}}}}, 400, "criteria"),
        ({"state": "x" * 70_000}, 413, "too large"),
    ],
)
async def test_refusals_have_the_native_shape(changes: dict[str, Any], status: int, words: str) -> None:
    found, reply = await _decide(**changes)
    assert (found, list(reply)) == (status, ["error"])
    assert words in reply["error"]


async def test_it_loads_takes_the_models_one_seat_and_can_be_busy() -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        stall = server.arm(Fault(kind=FaultKind.STALL, endpoint=PATH))
        calls = [asyncio.create_task(session.post(PATH, json=ASKED)) for _ in range(2)]
        await server.observations.until(lambda seen: seen.in_flight == 2 and seen.stalled == 1)
        assert server.observations.running["nimble:latest"] == 1
        stall.release()
        assert [reply.status for reply in await asyncio.gather(*calls)] == [200, 200]
        assert server.observations.loads == {"nimble:latest": 1}
        server.arm(busy(endpoint=PATH))
        async with session.post(PATH, json=ASKED) as response:
            assert (response.status, list(await response.json())) == (503, ["error"])


@pytest.mark.parametrize(("path", "verb"), [("/api/generate", "generate"), ("/api/chat", "chat")])
async def test_a_decision_model_writes_no_words_but_can_be_unloaded(path: str, verb: str) -> None:
    async with simulated_ollama(SETTINGS) as (server, session):
        await session.post(PATH, json=ASKED)
        asked = {"model": "nimble", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}
        async with session.post(path, json=asked) as response:
            assert (response.status, await response.json()) == (400, {"error": f'"nimble" does not support {verb}'})
        async with session.post("/api/generate", json={"model": "nimble", "keep_alive": 0}) as response:
            assert (await response.json())["done_reason"] == "unload"
        assert server.observations.unloads == {"nimble:latest": 1}
