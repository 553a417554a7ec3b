"""How many of a backend's seats a model's jobs may have: what the operator says, else what the server can use."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from service.backend.backend import Backend
from service.backend.models import Serial
from service.backend.overlap import Durations, Finding, Sending
from service.backend.placement import is_remote
from service.clock import Clock
from service.config import ModelConfig
from service.job import Counts, model_key, model_of_runner

_log = logging.getLogger(__name__)


class Limit(NamedTuple):
    """What a model may have of a backend's seats without being told, and why."""

    seats: int
    reason: Serial


class Shares:
    """The seats of models. Models that share weights share their seats, too: their jobs count as one model's."""

    def __init__(self, models: Mapping[str, ModelConfig], clock: Clock) -> None:
        self._told: dict[str, int] = {}
        self._clock = clock
        self.replace(models)

    def replace(self, models: Mapping[str, ModelConfig]) -> None:
        """From now on this holds of the configuration."""
        self._told = {model_key(name): one.parallel for name, one in models.items() if one.parallel is not None}

    def share(self, backend: Backend, model: str) -> int | None:
        """How many of the backend's seats the model may have; None: all."""
        told = self._told.get(model)
        if told is not None:
            return told
        limit = self._limit(backend, model)
        return None if limit is None else limit.seats

    def limits(self, backend: Backend) -> dict[str, Limit]:
        """The models there that are served one at a time, and have no more seats for that although the backend has."""
        if backend.config.concurrency == 1:
            return {}
        models = {model_key(one.name) for one in backend.installed or ()}
        limits = {
            model: self._limit(backend, model)
            for model in sorted(models)
            if backend.has_model(model) and model not in self._told
        }
        return {model: limit for model, limit in limits.items() if limit is not None}

    def began(self, backend: Backend, runner: str, sent_at: int, now: int) -> Sending | None:
        """The first token of a stream has come, whose request was sent at ``sent_at``. What this returns is to be given
        to :meth:`ended`; None when the stream can show nothing.
        """
        own = model_of_runner(backend.placement.own(runner))
        if is_remote(runner, backend.placement.remote) or model_of_runner(runner) in self._told:
            return None
        if backend.seating.why_serial(own) not in (None, Serial.LEARNED):
            return None
        return backend.seating.overlap.began(own, sent_at, now)

    def ended(self, backend: Backend, reply: Sending, counts: Counts | None) -> None:
        """The stream has ended; ``counts`` is what it says of itself when it is complete."""
        durations = None
        if counts is not None and counts.load_ms is not None:
            # Ollama leaves out what is zero.
            durations = Durations(counts.load_ms, counts.prompt_ms or 0, counts.generation_ms or 0)
        finding = backend.seating.overlap.ended(reply, self._clock.now_ms(), durations)
        if finding is Finding.ONE_AT_A_TIME:
            _log.warning("%s", advice(backend.name, reply.model, backend.config.concurrency))
        elif finding is Finding.AT_ONCE:
            _log.info("backend %s answers %s at once: it has all seats again", backend.name, reply.model)

    def _limit(self, backend: Backend, model: str) -> Limit | None:
        seating, own = backend.seating, backend.placement.own(model)
        why = seating.why_serial(own)
        if why is None:
            return None
        seats = seating.overlap.seats(own, self._clock.now_ms()) if why is Serial.LEARNED else 1
        return None if seats is None else Limit(seats, why)


def advice(backend: str, model: str, seats: int) -> str:
    """What to tell the operator of a model that a backend serves one at a time although it has more seats."""
    return (
        f"backend {backend}: concurrency = {seats}, but the server answers {model} one request at a time. This model "
        f"has one seat there, and two are tried each hour; set OLLAMA_NUM_PARALLEL={seats} on the server, or here "
        f'parallel = 1 in [models."{model}"]'
    )
