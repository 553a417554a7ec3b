"""How a backend is shown to those who watch the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NotRequired

from typing_extensions import TypedDict

from corral.breaker import Breaker, State
from service.backend.models import Serial
from service.backend.pool import Backend
from service.backend.shares import Limit
from service.fields import one_of


class BreakerReply(TypedDict):
    """The circuit breaker of a backend, or of a model there."""

    state: Annotated[str, one_of(State)]
    faults: int
    """In a row."""
    rest_seconds: float
    """Until it is tried again."""


class LimitReply(TypedDict):
    """What a model may have of a backend's seats because the server answers its requests one at a time."""

    seats: int
    """1, or 2 while those are tried again."""
    reason: Annotated[str, one_of(Serial)]
    """What it is: an MLX model, one of a family with one slot, one that writes no text; or learned from its replies."""


class RatesReply(TypedDict):
    """What a backend did in the last minute."""

    jobs_per_minute: float
    tokens_per_second: float
    mean_seconds: float | None
    """What a job took; null when there was none."""


class BackendReply(TypedDict):
    """One Ollama server."""

    name: str
    url: str
    state: Annotated[str, one_of(["ok", "absent", "draining", "drained"])]
    seats: int
    """How many jobs it is given at a time."""
    running: int
    running_models: dict[str, int]
    """How many jobs run on which."""
    loaded_models: list[str]
    models: list[str]
    """What is installed there."""
    loads: int
    """How often it was made to load a model."""
    breaker: BreakerReply
    failing_models: dict[str, BreakerReply]
    """Models that have failed since they last did not; one whose breaker is open gets no jobs there."""
    limited_models: dict[str, LimitReply]
    """Models that the server answers one request at a time, which have fewer seats for that."""
    rates: RatesReply
    version: NotRequired[str]
    loaded_models_age_seconds: NotRequired[float | None]
    """Only while the server does not tell what it has loaded: since when ``loaded_models`` is so; null where it never
    told.
    """
    error: NotRequired[str]


class BackendList(TypedDict):
    """All of them."""

    backends: list[BackendReply]


def backend_fields(backend: Backend, limits: Mapping[str, Limit], now: int) -> BackendReply:
    """A backend with the limits of its models, at the time ``now``. The rates are those of the last minute; times are
    in seconds.
    """
    work, mean_seconds = backend.work, backend.work.mean_seconds(now)
    fields: BackendReply = {
        "name": backend.name,
        "url": backend.client.url,
        "state": _state(backend),
        "seats": backend.config.concurrency,
        "running": backend.in_flight,
        "running_models": dict(backend.placement.in_flight),
        "loaded_models": [one.name for one in backend.loaded],
        "models": [one.name for one in backend.installed or ()],
        "loads": backend.placement.swaps,
        "breaker": _breaker_fields(backend.breakers.server),
        "failing_models": {model: _breaker_fields(one) for model, one in backend.breakers.failing.items()},
        "limited_models": {model: {"seats": one.seats, "reason": one.reason} for model, one in limits.items()},
        "rates": {
            "jobs_per_minute": round(work.jobs_per_minute(now), 2),
            "tokens_per_second": round(work.tokens_per_second(now), 2),
            "mean_seconds": None if mean_seconds is None else round(mean_seconds, 3),
        },
    }
    if backend.version is not None:
        fields["version"] = backend.version
    if backend.loaded_list.is_old:
        told_at = backend.loaded_list.told_at
        fields["loaded_models_age_seconds"] = None if told_at is None else round((now - told_at) / 1000, 1)
    if backend.trouble is not None:
        fields["error"] = backend.trouble
    return fields


def _breaker_fields(breaker: Breaker) -> BreakerReply:
    return {"state": breaker.state, "faults": breaker.faults, "rest_seconds": round(breaker.rest_seconds, 1)}


def _state(backend: Backend) -> str:
    if backend.is_drained:
        return "draining" if backend.in_flight else "drained"
    return "ok" if backend.is_answering else "absent"
