"""What the gateway answers."""

from __future__ import annotations

from typing import Annotated, Any

from typing_extensions import TypedDict

from service.api.reply_fields import Moment, PriorityWord, one_of
from service.key import Role


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


class KeyReply(TypedDict):
    """A key as lists show it; what does not limit it is null."""

    id: str
    name: str
    role: Annotated[str, one_of(Role)]
    rate_limit: int | None
    """Requests in any hour."""
    concurrency: int | None
    """How many of its jobs run at a time."""
    models: list[str] | None
    """The only models that it may use."""
    max_priority: PriorityWord | None
    weight: float
    """Its share of the backends' time, against 1 of everybody else."""
    owner_header: str | None
    """The header in which it may name the person behind each request."""
    expires_at: Moment | None
    is_active: bool
    """False once it is revoked or expired."""
    created_at: Moment
    last_used_at: Moment | None


class KeyList(TypedDict):
    """All keys, revoked ones too."""

    keys: list[KeyReply]


class CreatedKey(KeyReply):
    """A new key; the only reply that ever holds the key itself."""

    key: str


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
