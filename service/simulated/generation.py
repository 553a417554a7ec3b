"""One generation from the request to its last byte: checks, runner, seat, answer (wire contract 1.2 to 1.4)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from service.simulated import go_json
from service.simulated.answers import Answer, Question, answer
from service.simulated.delivery import Delivery, Stream
from service.simulated.errors import ReplyError
from service.simulated.faults import RUNNER_DIED, Disruption, FaultKind
from service.simulated.models import COMPLETION, INSERT, THINKING, TOOLS, SimulatedModel
from service.simulated.options import Options, read_options
from service.simulated.scheduler import Runner
from service.simulated.simulation import Simulation
from service.simulated.wire import EVENT_STREAM, Family, Reply, Timing, WireFormat

_SCHEMA_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


@dataclass(frozen=True, slots=True)
class Call:
    """A request for words, whichever route it came by. `is_empty`: it asks for a load (or an unload) only."""

    route: Literal["generate", "chat"]
    wire: WireFormat
    model: str
    prompt: str
    is_stream: bool
    history_length: int = 0
    is_empty: bool = False
    tools: tuple[dict[str, Any], ...] = ()
    is_tool_result: bool = False
    format: Any = None
    keep_alive_seconds: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    think: bool | str | None = None
    is_thinking_relaxed: bool = False  # `/v1/messages` drops a wish to think that cannot be fulfilled
    shift: bool = True
    truncate: bool = True
    top_logprobs: int = 0
    has_suffix: bool = False
    is_raw_conflicting: bool = False  # raw, with what raw does not support


async def serve(
    simulation: Simulation,
    delivery: Delivery,
    disruption: Disruption,
    call: Call,
    family: Family,
) -> web.StreamResponse:
    """Answer a call; what goes wrong before the first byte becomes an error of this family of routes."""
    started = time.monotonic_ns()
    try:
        model = _checked_model(simulation, call)
        if call.is_empty and call.keep_alive_seconds == 0:
            simulation.scheduler.expire(model)
            return await delivery.whole(_without_words(call, "unload"))
        is_thinking = _is_thinking(call, model)
        options = _options(simulation, call, model)
        runner = await simulation.scheduler.acquire(model, options.runner, call.keep_alive_seconds)
        try:
            loaded = time.monotonic_ns()
            if call.is_empty:
                return await delivery.whole(_without_words(call, "load"))
            async with runner.seats:
                simulation.observations.seated(model.name)
                try:
                    given = _answer(simulation, call, model, options, is_thinking)
                    generation = _Generation(runner, given, call.wire, started, loaded)
                    return await generation.deliver(simulation, delivery, disruption, call, model)
                finally:
                    simulation.observations.unseated(model.name)
        finally:
            simulation.scheduler.release(runner)
    except ReplyError as error:
        return await delivery.whole(family.failure(error, is_stream=call.is_stream))


@dataclass(frozen=True, slots=True)
class _Generation:
    runner: Runner
    given: Answer
    wire: WireFormat
    started: int
    loaded: int

    async def deliver(
        self, simulation: Simulation, delivery: Delivery, disruption: Disruption, call: Call, model: SimulatedModel
    ) -> web.StreamResponse:
        wire, given = self.wire, self.given
        if (long_line := disruption.fault(FaultKind.LONG_LINE)) is not None:
            given = given.with_long_token(long_line.after_tokens, long_line.amount)
        end = disruption.fault(FaultKind.RUNNER_KILLED, FaultKind.ERROR_LINE, FaultKind.NO_DONE)
        await delivery.before_first_byte()
        is_failing = end is not None and end.kind is not FaultKind.NO_DONE
        if end is not None and is_failing and (end.after_tokens == 0 or not call.is_stream):
            self._die(end.kind)
            raise ReplyError(end.reply_status, end.reply_message, is_late=True)
        token_seconds = model.token_seconds if model.token_seconds is not None else simulation.settings.token_seconds
        if not call.is_stream:
            await delivery.pass_time(given.token_count, token_seconds, is_endless=given.is_endless)
            if self.runner.is_dead:
                raise ReplyError(500, RUNNER_DIED, is_late=True)
            body = wire.whole(given, self._timing(), is_done=end is None)
            return await delivery.whole(Reply(200, body, wire.whole_type))
        return await delivery.stream(
            Stream(
                wire.stream_type,
                wire.frames(given),
                lambda: wire.closing(given, self._timing()),
                self._broken if end is None or end.kind is FaultKind.RUNNER_KILLED else wire.broken,
                token_seconds,
                given.is_endless,
                wire.stream_headers,
                lambda: self.runner.is_dead,
            )
        )

    def _broken(self, message: str) -> bytes:
        self._die(FaultKind.RUNNER_KILLED)
        return self.wire.broken(message)

    def _die(self, kind: FaultKind) -> None:
        """A killed runner takes its other requests with it, and the next one finds it gone and loads anew."""
        if kind is FaultKind.RUNNER_KILLED:
            self.runner.is_dead = True

    def _timing(self) -> Timing:
        now = time.monotonic_ns()
        generation = max(1, now - self.loaded)
        return Timing(now - self.started, max(1, self.loaded - self.started), max(1, generation // 8), generation)


def _checked_model(simulation: Simulation, call: Call) -> SimulatedModel:
    if not 0 <= call.top_logprobs <= 20:
        raise ReplyError(400, "top_logprobs must be between 0 and 20")
    if not call.model and call.route == "chat":
        raise ReplyError(400, "model is required")
    model = simulation.catalog.find(call.model) if call.model else None
    if model is None:
        raise ReplyError(404, f"model '{call.model}' not found")
    return model


def _is_thinking(call: Call, model: SimulatedModel) -> bool:
    if call.is_raw_conflicting:
        raise ReplyError(400, "raw mode does not support template, system, or context")
    if model.can(THINKING):
        return call.think is None or bool(call.think)
    if call.think and not call.is_thinking_relaxed:
        raise ReplyError(400, f"{_quoted(call.model)} does not support thinking")
    return False


def _options(simulation: Simulation, call: Call, model: SimulatedModel) -> Options:
    if not model.can(COMPLETION):
        raise ReplyError(400, f"{_quoted(call.model)} does not support {call.route}")
    wanted = ((TOOLS, bool(call.tools)), (INSERT, call.has_suffix))
    missing = [name for name, is_wanted in wanted if is_wanted and not model.can(name)]
    if missing:
        raise ReplyError(400, "\n".join(f"{model.registry_name} does not support {name}" for name in missing))
    automatic = simulation.settings.context_length
    return read_options(model, call.options, shift=call.shift, automatic_context=automatic)


def _answer(simulation: Simulation, call: Call, model: SimulatedModel, options: Options, is_thinking: bool) -> Answer:
    asked = call.format
    if asked not in (None, "", "json") and not isinstance(asked, dict):
        shown = go_json.encode(go_json.encode(asked).decode()).decode()
        message = f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
        raise ReplyError(500, message, is_late=True)
    if isinstance(asked, dict) and isinstance(kind := asked.get("type"), str) and kind not in _SCHEMA_TYPES:
        raise ReplyError(500, "invalid JSON schema in format", is_late=True)
    question = Question(
        call.prompt,
        call.history_length,
        call.tools,
        call.is_tool_result,
        asked,
        is_thinking,
        options.num_predict,
        options.runner.num_ctx,
        options.stop,
    )
    given = answer(question, model, simulation.settings)
    if not call.truncate and given.prompt_tokens > options.runner.num_ctx:
        raise ReplyError(400, _overflow(given.prompt_tokens, options.runner.num_ctx))
    return given


def _overflow(tokens: int, context: int) -> str:
    """The runner's own JSON, which Ollama passes on as a string (contract 3.2, row 22)."""
    error = {
        "code": 400,
        "message": f"request ({tokens} tokens) exceeds the available context size ({context} tokens), "
        "try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": tokens,
        "n_ctx": context,
    }
    return go_json.encode({"error": error}).decode()


def _without_words(call: Call, reason: str) -> Reply:
    """The reply to a load or an unload: one object on native routes, even when a stream was asked for."""
    wire = call.wire
    nothing = Answer((), prompt_tokens=0, done_reason=reason)
    if not call.is_stream or wire.stream_type != EVENT_STREAM:
        return Reply(200, wire.whole(nothing, None), wire.whole_type)
    body = b"".join(wire.frames(nothing)) + wire.closing(nothing, None)
    return Reply(200, body, wire.stream_type, wire.stream_headers)


def _quoted(text: str) -> str:
    return go_json.encode(text).decode()
