"""What keys, tokens, models and statistics take and answer."""

from __future__ import annotations

from typing import Annotated, Any

from typing_extensions import TypedDict

from service.fields import Moment, one_of


class ModelReply(TypedDict):
    """A model that is installed somewhere."""

    name: str
    backends: list[str]
    """Where it is installed."""
    is_loaded: bool
    is_available: bool
    """Whether one of these backends takes jobs now; else they are held until one does."""
    size: int
    """Bytes."""
    modified_at: str | None
    details: dict[str, Any]
    """As Ollama gives them."""


class ModelList(TypedDict):
    """What a program or the page offers to choose from."""

    models: list[ModelReply]
    default: str
    """What is used where no model is named."""


class TokenReply(TypedDict):
    """A signed token that opens for a while what the key opens."""

    access_token: str
    token_type: Annotated[str, one_of(["bearer"])]
    expires_in: int
    """Seconds."""
    expires_at: Moment


class Sums(TypedDict):
    """Requests and tokens."""

    requests: int
    successful: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Totals(Sums):
    """All of it."""

    response_seconds: dict[str, float]
    """The times that half (``p50``), 95 (``p95``) and 99 (``p99``) of a hundred requests did not exceed."""


class KeySums(Sums):
    """What was asked with one key; null: without any."""

    key_id: str | None
    name: str | None


class OwnerSums(Sums):
    """What one owner asked: a key, a person behind it, or a client address."""

    owner: str


class ModelSums(Sums):
    """What one model was asked."""

    model: str | None


class DaySums(Sums):
    """What was asked on one day (UTC)."""

    day: str


class StatisticsReply(TypedDict):
    """What was asked since the period began, the busiest first."""

    period_started_at: Moment | None
    """Null: since the log begins."""
    totals: Totals
    by_key: list[KeySums]
    by_owner: list[OwnerSums]
    by_model: list[ModelSums]
    by_day: list[DaySums]


class PeriodReply(TypedDict):
    """The new period."""

    period_started_at: Moment
