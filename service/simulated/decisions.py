"""`/v1/systemone`: probabilities in place of words, from small decision models (wire contract 1.7, since 0.35).

Its documentation gives the fields and the statuses; the words of its own refusals are our own.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from service.simulated import go_json, requests
from service.simulated.answers import count_tokens
from service.simulated.delivery import Delivery
from service.simulated.errors import ReplyError
from service.simulated.faults import RUNNER_DIED, Disruption, FaultKind
from service.simulated.generation import hold
from service.simulated.models import DECISION, SimulatedModel
from service.simulated.options import read_options
from service.simulated.simulation import Simulation
from service.simulated.wire import Family, Reply, json_reply

_LARGEST_BODY = 64 << 10
_LARGEST_BODY_WITH_IMAGES = 32 << 20
_MOST_QUESTIONS = 64
_KINDS = ("choice", "noul", "score")


@dataclass(frozen=True, slots=True)
class DecisionCall:
    """A request for decisions: the state of things, and the questions about it by their names."""

    model: str
    state: str
    questions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keep_alive_seconds: float | None = None

    @property
    def prompt(self) -> str:
        return self.state

    @property
    def input_tokens(self) -> int:
        return count_tokens(len(self.state) + len(go_json.encode(dict(self.questions))))

    def failure(self, error: ReplyError, family: Family) -> Reply:
        return family.failure(error, is_stream=False)


def read_decision(body: bytes) -> DecisionCall:
    fields = requests.DECISION.decode(body)
    if len(body) > (_LARGEST_BODY_WITH_IMAGES if fields.get("images") else _LARGEST_BODY):
        raise ReplyError(413, "request body too large")
    if not fields.get("model"):
        raise ReplyError(400, "model is required")
    state, questions = fields.get("state"), fields.get("questions", {})
    if not isinstance(state, str | dict | list):
        raise ReplyError(400, "state must be a string, an object or an array")
    if not 1 <= len(questions) <= _MOST_QUESTIONS:
        raise ReplyError(400, f"questions must have 1 to {_MOST_QUESTIONS} entries")
    for name, question in questions.items():
        if not isinstance(question, dict) or question.get("type") not in _KINDS:
            raise ReplyError(400, f"question {go_json.encode(name).decode()} must be of type choice, noul or score")
    shown = state if isinstance(state, str) else go_json.encode(state).decode()
    return DecisionCall(fields["model"], shown, questions, fields.get("keep_alive"))


async def serve(
    simulation: Simulation, delivery: Delivery, disruption: Disruption, call: DecisionCall, family: Family
) -> web.StreamResponse:
    """Like any other inference it goes through the scheduler; all its questions cost the time of one token."""
    try:
        model = _checked_model(simulation, call)
        options = read_options(model, {}, shift=True, automatic_context=simulation.settings.context_length)
        async with simulation.scheduler.acquired(model, options.runner, call.keep_alive_seconds) as runner:
            async with simulation.scheduler.seated(runner, model):
                await hold(runner, delivery, disruption)
                await delivery.before_first_byte()
                if (end := disruption.fault(FaultKind.RUNNER_KILLED, FaultKind.ERROR_LINE)) is not None:
                    runner.is_dead = end.kind is FaultKind.RUNNER_KILLED or runner.is_dead
                    raise ReplyError(500, end.message or RUNNER_DIED)
                await asyncio.sleep(model.token_seconds or simulation.settings.token_seconds)
            answers = {name: _answer(call.state, name, question) for name, question in call.questions.items()}
            usage = {"input_tokens": call.input_tokens, "output_tokens": len(answers)}
            return await delivery.whole(json_reply({"model": call.model, "answers": answers, "usage": usage}))
    except ReplyError as error:
        return await delivery.whole(call.failure(error, family))


def _checked_model(simulation: Simulation, call: DecisionCall) -> SimulatedModel:
    model = simulation.catalog.find(call.model)
    if model is None:
        raise ReplyError(404, f"model '{call.model}' not found")
    if not model.can(DECISION):
        raise ReplyError(400, f"{go_json.encode(call.model).decode()} does not support decision")
    return model


def _answer(state: str, name: str, question: Mapping[str, Any]) -> dict[str, Any]:
    criteria, kind = question.get("criteria"), question["type"]
    seed = f"{name}\n{state}"
    if kind == "noul":
        return {"type": kind, "noul": _probabilities(seed, ["true", "false"])["true"]}
    if kind == "choice":
        shares = _probabilities(seed, list(criteria) if isinstance(criteria, dict) else [])
        chosen = max(shares, key=lambda option: shares[option])
        return {"type": kind, "choice": chosen, "probabilities": shares, "confidence": shares[chosen]}
    levels = [str(level) for level in criteria] if isinstance(criteria, list) else []
    shares = _probabilities(seed, [str(index) for index in range(len(levels))])
    score = round(sum(int(level) * share for level, share in shares.items()), 4)
    legend = {str(index): level for index, level in enumerate(levels)}
    return {
        "type": kind,
        "score": score,
        "probabilities": shares,
        "legend": legend,
        "confidence": max(shares.values()),
    }


def _probabilities(seed: str, options: Sequence[str]) -> dict[str, float]:
    """Numbers that depend on the state and the question, and come to one together."""
    if not options:
        raise ReplyError(400, "criteria must have entries")
    weights = {option: 1 + zlib.crc32(f"{seed}\n{option}".encode("utf-8", "replace")) % 97 for option in options}
    total = sum(weights.values())
    return {option: round(weight / total, 4) for option, weight in weights.items()}
