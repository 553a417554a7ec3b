"""What keys take and answer, to programs and on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from service.clock import zulu, zulu_or_none
from service.fields import STRICT, Moment, PriorityField, PriorityWord, PriorityWords, moment_ms, one_of
from service.job import Priority
from service.key import Key, NewKey, Role

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_RESERVED_HEADERS = frozenset({"authorization", "x-api-key", "host", "content-length", "content-type", "cookie"})
_PRIORITY: TypeAdapter[int] = TypeAdapter(PriorityField)
_MOMENT = 'must be a time such as "2027-01-31" or "2027-01-31T12:00:00Z", or seconds since the epoch'


def _read_moment(value: Any) -> int | None:
    if value is None:
        return None
    try:
        seconds = _seconds_of(value)
    except (ValueError, OverflowError):
        raise ValueError(_MOMENT) from None
    return moment_ms(seconds, _MOMENT)


def _seconds_of(value: Any) -> float:
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"\d{1,12}(\.\d+)?", text):
            return float(text)
        moment = datetime.fromisoformat(text.upper())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(_MOMENT)
    return float(value)


def _read_role(value: Any) -> Any:
    if value not in ("admin", "user"):
        raise ValueError("must be admin or user")
    return Role(value)


def _read_priority(value: Any) -> int | None:
    # For a job, null means normal; for a key, no limit.
    return None if value is None else _PRIORITY.validate_python(value)


def _is_header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError("must be the name of a header, such as X-OpenWebUI-User-Id")
    if value.lower() in _RESERVED_HEADERS:
        raise ValueError("must be a header of its own, not one that HTTP or the key uses")
    return value


MomentField = Annotated[int | None, BeforeValidator(_read_moment, json_schema_input_type=str | float | None)]
"""Milliseconds since the epoch, once it is read; a time without a zone is UTC."""
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
ModelName = Annotated[str, Field(min_length=1, max_length=400)]


class KeyRequest(BaseModel):
    """``POST /api/keys``; null, or left out: without that limit."""

    model_config = ConfigDict(**STRICT, populate_by_name=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    role: Annotated[Role, BeforeValidator(_read_role, json_schema_input_type=Role)] = Role.USER
    rate_limit: Count | None = Field(default=None, validation_alias=AliasChoices("rate_limit", "requests_per_hour"))
    """Requests in any hour."""
    concurrency: Count | None = None
    """How many of its jobs run at a time."""
    models: Annotated[list[ModelName], Field(max_length=1000, fail_fast=True)] | None = None
    """The only models that it may use; none: all."""
    max_priority: Annotated[
        int | None, BeforeValidator(_read_priority, json_schema_input_type=PriorityWords | None)
    ] = None
    """The highest that it may ask for."""
    weight: Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)] = 1.0
    """Its share of the backends' time, against 1 of everybody else."""
    owner_header: Annotated[str, AfterValidator(_is_header_name)] | None = None
    """The header in which it may name the person behind each request."""
    expires: MomentField = Field(default=None, validation_alias=AliasChoices("expires", "expires_at"))
    """From when on it opens nothing: a time, or seconds since the epoch."""
    retention_days: Annotated[int, Field(ge=0, le=36_500)] | None = None
    """What its jobs were asked and answered is deleted so many days after their end. 0: ten minutes after a result was
    sent whole, and after a day at the latest. Null: with their rows.
    """


class RevocationQuery(BaseModel):
    """What becomes of the jobs of a key that is revoked."""

    keep_jobs: bool = False
    """Whether they go on. Else those that are queued or run end as ``cancelled``, with the code ``revoked``."""


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
    retention_days: int | None
    """How long what its jobs were asked and answered is kept after their end."""
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


def to_new_key(request: KeyRequest) -> NewKey:
    """The key that is wanted."""
    return NewKey(
        name=request.name,
        role=request.role,
        requests_per_hour=request.rate_limit,
        concurrency=request.concurrency,
        models=tuple(request.models or ()),
        max_priority=request.max_priority,
        weight=float(request.weight),
        owner_header=request.owner_header,
        expires_at=request.expires,
        retention_days=request.retention_days,
    )


def key_fields(key: Key, now: int) -> KeyReply:
    """A key as lists show it; ``now`` in milliseconds since the epoch. What does not limit it is null."""
    return {
        "id": key.id,
        "name": key.name,
        "role": str(key.role),
        "rate_limit": key.requests_per_hour,
        "concurrency": key.concurrency,
        "models": list(key.models) or None,
        "max_priority": None if key.max_priority is None else Priority(key.max_priority).word,
        "weight": key.weight,
        "owner_header": key.owner_header,
        "retention_days": key.retention_days,
        "expires_at": zulu_or_none(key.expires_at),
        "is_active": key.is_active and not key.is_expired(now),
        "created_at": zulu(key.created_at),
        "last_used_at": zulu_or_none(key.last_used_at),
    }
