"""`/v1/images/generations` and `/v1/images/edits`: pictures in base64, in one piece (wire contract 1.7, 1.9)."""

from __future__ import annotations

import random
import re
import time
from base64 import b64encode
from dataclasses import dataclass

from aiohttp import web

from service.simulated import go_json, requests
from service.simulated.delivery import Delivery
from service.simulated.errors import ReplyError
from service.simulated.faults import Disruption, FaultKind
from service.simulated.generation import hold
from service.simulated.go_types import Struct
from service.simulated.models import IMAGE, SimulatedModel
from service.simulated.openai import check_image
from service.simulated.options import read_options
from service.simulated.simulation import Simulation
from service.simulated.wire import NDJSON, Family, Reply

_SIZE = re.compile(r"(\d+)x(\d+)")
_MOST_PIXELS_WIDE = 4096
_STEPS = 4
_SWALLOWED = Reply(200, b"", NDJSON, is_chunked=True)
"""What is left of an error once it has begun to draw, and of the words of a model that does not draw."""


@dataclass(frozen=True, slots=True)
class PictureCall:
    """A request for a picture of as many bytes as it is to have pixels."""

    model: str
    prompt: str
    width: int
    height: int

    def failure(self, error: ReplyError, family: Family) -> Reply:
        return family.failure(error, is_stream=False)


def read_generation(body: bytes) -> PictureCall:
    return _read(body, requests.IMAGE_GENERATION)


def read_edit(body: bytes) -> PictureCall:
    return _read(body, requests.IMAGE_EDIT)


def _read(body: bytes, struct: Struct) -> PictureCall:
    fields = struct.decode(body)
    needed = ("prompt", "model", "image") if struct is requests.IMAGE_EDIT else ("prompt", "model")
    for name in needed:
        if not fields.get(name):
            raise ReplyError(400, f"{name} is required")
    if struct is requests.IMAGE_EDIT:
        try:
            check_image(fields["image"])
        except ReplyError as error:
            raise ReplyError(400, f"invalid image: {error.message}") from None
    found = _SIZE.match(fields.get("size", ""))
    width, height = (int(found[1]), int(found[2])) if found is not None else (64, 64)
    return PictureCall(fields["model"], fields["prompt"], width, height)


async def serve(
    simulation: Simulation, delivery: Delivery, disruption: Disruption, call: PictureCall, family: Family
) -> web.StreamResponse:
    """Like any other inference it goes through the scheduler; a picture costs the time of some tokens."""
    try:
        model = _checked_model(simulation, call)
        options = read_options(model, {}, shift=True, automatic_context=simulation.settings.context_length)
        async with simulation.scheduler.acquired(model, options.runner, None) as runner:
            async with simulation.scheduler.seated(runner, model):
                await hold(runner, delivery, disruption)
                await delivery.before_first_byte()
                if (end := disruption.fault(FaultKind.RUNNER_KILLED, FaultKind.ERROR_LINE)) is not None:
                    runner.is_dead = end.kind is FaultKind.RUNNER_KILLED or runner.is_dead
                    if end.after_tokens == 0:
                        raise ReplyError(end.reply_status, end.reply_message)
                    return await delivery.whole(_SWALLOWED)
                seconds = model.token_seconds or simulation.settings.token_seconds
                await delivery.pass_time(_STEPS, seconds, is_endless=False)
            return await delivery.whole(_picture(call) if model.can(IMAGE) else _SWALLOWED)
    except ReplyError as error:
        return await delivery.whole(call.failure(error, family))


def _checked_model(simulation: Simulation, call: PictureCall) -> SimulatedModel:
    model = simulation.catalog.find(call.model)
    if model is None:
        raise ReplyError(404, f"model '{call.model}' not found")
    if max(call.width, call.height) > _MOST_PIXELS_WIDE:
        raise ReplyError(400, f"width and height must be <= {_MOST_PIXELS_WIDE}")
    return model


def _picture(call: PictureCall) -> Reply:
    drawn = random.Random(call.prompt).randbytes(call.width * call.height)
    reply = {"created": int(time.time()), "data": [{"b64_json": b64encode(drawn).decode()}]}
    # Its head went out with the first step, long before Ollama knew what it would be (as of a transcription).
    return Reply(200, go_json.encode(reply) + b"\n", NDJSON, is_chunked=True)
