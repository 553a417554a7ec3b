"""One generation from the request to its last byte: checks, runner, seat, answer (wire contract 1.2 to 1.4)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from aiohttp import web

from service.simulated import go_json
from service.simulated.answers import WEB_SEARCH, Answer, Question, answer
from service.simulated.delivery import Delivery, Stream
from service.simulated.errors import ReplyError
from service.simulated.faults import RUNNER_DIED, Disruption, Fault, FaultKind
from service.simulated.models import COMPLETION, INSERT, THINKING, TOOLS, SimulatedModel
from service.simulated.options import Options, read_options
from service.simulated.scheduler import Runner, Seat
from service.simulated.settings import SimulatedSettings
from service.simulated.simulation import Simulation
from service.simulated.texts import context_exceeded, mlx_context_exceeded
from service.simulated.wire import EVENT_STREAM, NDJSON, Family, Reply, Timing, WireFormat

_ENDS = (FaultKind.RUNNER_KILLED, FaultKind.ERROR_LINE, FaultKind.SEAT_LOST, FaultKind.NO_DONE)
_SCHEMA_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


@dataclass(frozen=True, slots=True)
class Call:
    """A request for words, whichever route it came by. `is_empty`: it asks for a load (or an unload) only.

    `search`: the server itself runs the tool `web_search` when the model calls it, and a stream shows that it does, or
    is silent until it has. `refuse`: what a refusal before the first token becomes, where it is none of its family.
    """

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
    search: Literal["shown", "silent"] | None = None
    refuse: Callable[[ReplyError], Reply] | None = None

    def failure(self, error: ReplyError, family: Family) -> Reply:
        if self.refuse is not None:
            return self.refuse(error)
        return family.failure(error, is_stream=self.is_stream)


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
        async with simulation.scheduler.acquired(model, options.runner, call.keep_alive_seconds) as runner:
            loaded = time.monotonic_ns()
            if call.is_empty:
                return await delivery.whole(_without_words(call, "load"))
            async with simulation.scheduler.seated(runner, model) as seat:
                seated = time.monotonic_ns()
                await hold(runner, delivery, disruption)
                given = _answer(simulation, call, model, options, is_thinking)
                generation = _Generation(simulation.settings, call, runner, seat, given, started, loaded, seated)
                return await generation.deliver(delivery, disruption)
    except ReplyError as error:
        return await delivery.whole(call.failure(error, family))


async def hold(runner: Runner, delivery: Delivery, disruption: Disruption) -> None:
    """Wait for ever, if the runner hangs: the first request that meets the fault makes it hang for all others."""
    if runner.hang is None:
        runner.hang = disruption.armed(FaultKind.RUNNER_HANGS)
    if runner.hang is not None:
        await delivery.stall(runner.hang)


@dataclass(frozen=True, slots=True)
class _Generation:
    settings: SimulatedSettings
    call: Call
    runner: Runner
    seat: Seat
    answer: Answer
    started: int
    loaded: int
    seated: int

    async def deliver(self, delivery: Delivery, disruption: Disruption) -> web.StreamResponse:
        call = self.call
        given, end = self._disturbed(disruption)
        await delivery.before_first_byte()
        if disruption.fault(FaultKind.SILENT_END) is not None:
            return await self._nothing(delivery)
        is_failing = end is not None and end.kind is not FaultKind.NO_DONE
        if end is not None and is_failing and (end.after_tokens == 0 or not call.is_stream):
            self._die(end.kind)
            raise ReplyError(end.reply_status, end.reply_message, is_late=True)
        if given.search is not None and not (call.is_stream and call.search == "shown"):
            await delivery.search(self.settings.web_search_seconds)
        if call.is_stream:
            return await delivery.stream(self._stream(delivery, given, end))
        await delivery.pass_time(given.token_count, self._token_seconds, is_endless=given.is_endless)
        if self.runner.hang is not None:
            await delivery.stall(self.runner.hang)
        if self.runner.is_dead:
            raise ReplyError(500, RUNNER_DIED, is_late=True)
        body = call.wire.whole(given, self._timing(), is_done=end is None)
        return await delivery.whole(Reply(200, body, call.wire.whole_type))

    @property
    def _token_seconds(self) -> float:
        own = self.runner.model.token_seconds
        return own if own is not None else self.settings.token_seconds

    def _disturbed(self, disruption: Disruption) -> tuple[Answer, Fault | None]:
        """The answer as the faults make it, and how it breaks off."""
        if (long_line := disruption.fault(FaultKind.LONG_LINE)) is not None:
            return self.answer.with_long_token(long_line.after_tokens, long_line.amount), disruption.fault(*_ENDS)
        if (repeats := disruption.fault(FaultKind.TOKEN_REPEATS)) is None:
            return self.answer, disruption.fault(*_ENDS)
        token = repeats.body if repeats.body is not None else " the"
        given = self.answer.repeating(repeats.after_tokens, token, self.settings.behaviour.most_repeats)
        kind = FaultKind.ERROR_LINE if self.settings.behaviour.tells_token_repeats else FaultKind.NO_DONE
        message = repeats.reply_message
        return given, Fault(kind=kind, after_tokens=len(given.thinking) + len(given.tokens), message=message)

    def _stream(self, delivery: Delivery, given: Answer, end: Fault | None) -> Stream:
        wire = self.call.wire
        is_searching = given.search is not None and self.call.search == "shown"
        return Stream(
            wire.stream_type,
            wire.frames(given),
            lambda: wire.closing(given, self._timing()),
            lambda message: self._broken(end, message),
            self._token_seconds,
            given.is_endless,
            wire.stream_headers,
            is_cut=lambda: self.runner.is_dead,
            hang=lambda: self.runner.hang,
            end=end,
            interlude=(lambda: self._search(delivery)) if is_searching else None,
        )

    async def _search(self, delivery: Delivery) -> bytes:
        """What ends the stream when the search fails, and nothing when it does not."""
        try:
            await delivery.search(self.settings.web_search_seconds)
        except ReplyError as error:
            return self.call.refuse(error).body if self.call.refuse is not None else b""
        return b""

    async def _nothing(self, delivery: Delivery) -> web.StreamResponse:
        """The runner's stream has ended before its first event. A converter that gets no line sets no content type."""
        if not self.call.is_stream:
            return await delivery.whole(Reply(200, self.call.wire.nothing(), self.call.wire.whole_type))
        end = Fault(kind=FaultKind.NO_DONE)
        return await delivery.stream(Stream(NDJSON, iter(()), lambda: b"", self.call.wire.broken, end=end))

    def _broken(self, end: Fault | None, message: str) -> bytes:
        self._die(end.kind if end is not None else FaultKind.RUNNER_KILLED)
        return self.call.wire.broken(message)

    def _die(self, kind: FaultKind) -> None:
        """A killed runner takes its other requests with it, and the next one finds it gone and loads anew."""
        if kind is FaultKind.RUNNER_KILLED:
            self.runner.is_dead = True
        if kind is FaultKind.SEAT_LOST:
            self.seat.is_lost = True

    def _timing(self) -> Timing:
        # The wait for a seat is in none of the parts (wire contract 1.2).
        now = time.monotonic_ns()
        work = max(2, now - self.seated)
        # The first token comes one pace after the prompt.
        prompt = max(1, min(work // 8, int(self._token_seconds * 1e9) or work // 8))
        return Timing(now - self.started, max(1, self.loaded - self.started), prompt, work - prompt)


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
    if model.is_mlx:
        question = _within_context(question)
    given = answer(question, model, simulation.settings)
    if not call.truncate and given.prompt_tokens > options.runner.num_ctx:
        raise ReplyError(400, context_exceeded(given.prompt_tokens, options.runner.num_ctx))
    if call.search is not None and any(each.name == WEB_SEARCH for each in given.tool_calls):
        following = answer(replace(question, is_tool_result=True), model, simulation.settings)
        return replace(following, search=question.prompt)
    return given


def _within_context(question: Question) -> Question:
    """The MLX runner takes no longer a prompt than its context, and without a limit fills what is left of it."""
    room = question.num_ctx - question.prompt_tokens
    if room < 0:
        raise ReplyError(400, mlx_context_exceeded(question.prompt_tokens, question.num_ctx))
    return question if question.num_predict > 0 else replace(question, num_predict=max(1, room))


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
