"""`/api/embed`, `/api/embeddings` and `/v1/embeddings`: vectors, never streamed (wire contract 1.5, 1.7)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from service.simulated import go_json, requests
from service.simulated.answers import count_tokens, raw_vector, vector, vector_as_base64
from service.simulated.delivery import Delivery
from service.simulated.errors import ReplyError
from service.simulated.faults import Disruption, FaultKind
from service.simulated.generation import hold
from service.simulated.models import EMBEDDING, SimulatedModel
from service.simulated.options import read_options
from service.simulated.scheduler import Runner
from service.simulated.simulation import Simulation
from service.simulated.texts import EMBEDDING_EOF, MLX_NO_EMBEDDINGS, TOKENIZE_EOF
from service.simulated.wire import PLAIN_JSON, Family, Reply, json_reply

_NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"


@dataclass(frozen=True, slots=True)
class Measures:
    """What a reply may tell beside the vectors: prompt tokens, and nanoseconds."""

    tokens: int = 0
    total: int = 0
    load: int = 0


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """A request for vectors. `failure_status` is what a route makes of a runner's failure (3.2, rows 27 and 28)."""

    model: str
    inputs: tuple[str, ...]
    render: Callable[[SimulatedModel, Measures], Reply]
    failure_status: int = 400
    refused_status: int = 501
    is_model_required: bool = False
    keep_alive_seconds: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    truncate: bool = True

    @property
    def prompt(self) -> str:
        return "\n".join(self.inputs)

    def failure(self, error: ReplyError, family: Family) -> Reply:
        return family.failure(error, is_stream=False)


def read_embed(body: bytes) -> EmbeddingCall:
    fields = requests.EMBED.decode(body)
    name, inputs, dimensions = fields.get("model", ""), _inputs(fields.get("input")), fields.get("dimensions", 0)

    def render(model: SimulatedModel, measures: Measures) -> Reply:
        vectors = _vectors(inputs, model, dimensions)
        reply: dict[str, Any] = {"model": name, "embeddings": vectors}
        if vectors:
            reply |= {"total_duration": measures.total, "load_duration": measures.load}
            reply["prompt_eval_count"] = measures.tokens
        return json_reply(reply)

    return EmbeddingCall(name, inputs, render, **_shared(fields), truncate=fields.get("truncate", True))


def read_embeddings(body: bytes) -> EmbeddingCall:
    fields = requests.EMBEDDINGS.decode(body)
    prompt = fields.get("prompt", "")

    def render(model: SimulatedModel, measures: Measures) -> Reply:
        return json_reply({"embedding": raw_vector(prompt, model.embedding_length) if prompt else []})

    return EmbeddingCall(
        fields.get("model", ""),
        (prompt,) if prompt else (),
        render,
        failure_status=500,
        refused_status=500,
        is_model_required=True,
        **_shared(fields),
    )


def read_embedding_list(body: bytes) -> EmbeddingCall:
    fields = requests.EMBEDDING_LIST.decode(body)
    name, encoding = fields.get("model", ""), fields.get("encoding_format", "")
    if encoding and encoding.lower() not in ("float", "base64"):
        supported = "Supported values: ['float', 'base64']."
        raise ReplyError(400, f"Invalid value for 'encoding_format' = {encoding}. {supported}")
    given = fields.get("input")
    if given is None or given == []:
        raise ReplyError(400, "invalid input")
    inputs = ("",) if given == "" else _inputs(given)
    dimensions = fields.get("dimensions", 0)

    def render(model: SimulatedModel, measures: Measures) -> Reply:
        vectors = _vectors(inputs, model, dimensions)
        shown = [vector_as_base64(each) for each in vectors] if encoding.lower() == "base64" else vectors
        data = [{"object": "embedding", "embedding": each, "index": index} for index, each in enumerate(shown)]
        usage = {"prompt_tokens": measures.tokens, "total_tokens": measures.tokens}
        body = go_json.encode({"object": "list", "data": data, "model": name, "usage": usage})
        return Reply(200, body + b"\n", PLAIN_JSON)

    return EmbeddingCall(name, inputs, render)


async def serve(
    simulation: Simulation, delivery: Delivery, disruption: Disruption, call: EmbeddingCall, family: Family
) -> web.StreamResponse:
    started = time.monotonic_ns()
    try:
        model = _checked_model(simulation, call)
        automatic = simulation.settings.context_length
        options = read_options(model, call.options, shift=True, automatic_context=automatic)
        async with simulation.scheduler.acquired(model, options.runner, call.keep_alive_seconds) as runner:
            loaded = time.monotonic_ns()
            await hold(runner, delivery, disruption)
            await delivery.before_first_byte()
            tokens = sum(count_tokens(len(text)) for text in call.inputs)
            await _embed(simulation, disruption, runner, call, options.runner.num_ctx)
            measures = Measures(tokens, time.monotonic_ns() - started, max(1, loaded - started))
            return await delivery.whole(call.render(model, measures))
    except ReplyError as error:
        return await delivery.whole(call.failure(error, family))


async def _embed(
    simulation: Simulation, disruption: Disruption, runner: Runner, call: EmbeddingCall, context: int
) -> None:
    """Every input is a call of its own to the runner, and takes its seat and the time of a token."""
    model = runner.model
    if call.inputs and model.is_mlx:
        raise ReplyError(call.failure_status, MLX_NO_EMBEDDINGS)
    if call.inputs and not model.can(EMBEDDING):
        raise ReplyError(call.refused_status, _NO_EMBEDDINGS)
    if (end := disruption.fault(FaultKind.RUNNER_KILLED, FaultKind.ERROR_LINE)) is not None:
        runner.is_dead = end.kind is FaultKind.RUNNER_KILLED or runner.is_dead
        is_tokenized_first = simulation.settings.behaviour.tokenizes_before_embedding
        words = end.message or (TOKENIZE_EOF if is_tokenized_first else EMBEDDING_EOF)
        raise ReplyError(call.failure_status, words)
    pace = disruption.fault(FaultKind.PACE)
    seconds = pace.seconds if pace is not None else model.token_seconds or simulation.settings.token_seconds
    for text in call.inputs:
        if not call.truncate and count_tokens(len(text)) > context:
            raise ReplyError(400, "the input length exceeds the context length")
        async with simulation.scheduler.seated(runner, model):
            if seconds:
                await asyncio.sleep(seconds)


def _checked_model(simulation: Simulation, call: EmbeddingCall) -> SimulatedModel:
    if not call.model:
        raise ReplyError(400, "model is required") if call.is_model_required else ReplyError(404, "model '' not found")
    model = simulation.catalog.find(call.model)
    if model is None:
        raise ReplyError(404, f"model {go_json.encode(call.model).decode()} not found, try pulling it first")
    return model


def _inputs(given: Any) -> tuple[str, ...]:
    match given:
        case None | "":
            return ()
        case str():
            return (given,)
        case list() if all(isinstance(item, str) for item in given):
            return tuple(given)
        case _:
            raise ReplyError(400, "invalid input type")


def _vectors(inputs: Sequence[str], model: SimulatedModel, dimensions: int) -> list[tuple[float, ...]]:
    return [vector(text, model.embedding_length, dimensions) for text in inputs]


def _shared(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"keep_alive_seconds": fields.get("keep_alive"), "options": fields.get("options", {})}
