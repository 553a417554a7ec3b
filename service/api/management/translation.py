"""From requests of admins to keys, and from keys and statistics to replies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from service.api.live import job_shape
from service.api.management.schema import KeyReply, KeyRequest, StatisticsReply
from service.api.management.schema import Sums as SumsReply
from service.job import Priority
from service.key import Key, NewKey
from service.request_log import Statistics
from service.store.request_log import Sums

_DAY_MS = 86_400_000
_MOST_MODELS = 1_000
"""Callers can name any number of models, so only the busiest are listed."""


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


def moment(milliseconds: int) -> str:
    """Milliseconds since the epoch as these routes write them: ``2026-11-20T10:10:19.960Z``."""
    return job_shape.moment(milliseconds, "Z")


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
        "expires_at": _moment(key.expires_at),
        "is_active": key.is_active and not key.is_expired(now),
        "created_at": moment(key.created_at),
        "last_used_at": _moment(key.last_used_at),
    }


def statistics_fields(statistics: Statistics, names: Mapping[str, str]) -> StatisticsReply:
    """Statistics as JSON; ``names`` are the keys' by id. Times are in seconds."""
    return {
        "period_started_at": _moment(statistics.since),
        "totals": {
            **_sums(statistics.totals),
            "response_seconds": {name: value / 1000 for name, value in statistics.response_ms.items()},
        },
        "by_key": [
            {"key_id": key_id, "name": None if key_id is None else names.get(key_id), **_sums(sums)}
            for key_id, sums in _busiest(statistics.by_key.items())
        ],
        "by_owner": [{"owner": owner, **_sums(sums)} for owner, sums in _busiest(statistics.by_owner.items())],
        "by_model": [
            {"model": model, **_sums(sums)} for model, sums in _busiest(statistics.by_model.items())[:_MOST_MODELS]
        ],
        "by_day": [
            {"day": moment(day * _DAY_MS)[:10], **_sums(sums)} for day, sums in sorted(statistics.by_day.items())
        ],
    }


def _sums(sums: Sums) -> SumsReply:
    return {
        "requests": sums.requests,
        "successful": sums.successful,
        "failed": sums.requests - sums.successful,
        "prompt_tokens": sums.prompt_tokens,
        "completion_tokens": sums.completion_tokens,
        "total_tokens": sums.prompt_tokens + sums.completion_tokens,
    }


def _busiest(groups: Iterable[tuple[Any, Sums]]) -> list[tuple[Any, Sums]]:
    return sorted(groups, key=lambda pair: (-pair[1].requests, str(pair[0])))


def _moment(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else moment(milliseconds)
