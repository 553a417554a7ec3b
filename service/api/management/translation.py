"""From requests of admins to keys, and from keys and statistics to replies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from service.api.management.schema import StatisticsReply
from service.api.management.schema import Sums as SumsReply
from service.clock import zulu, zulu_or_none
from service.request_log import Statistics
from service.store.request_log import Sums

_DAY_MS = 86_400_000
_MOST_MODELS = 1_000
"""Callers can name any number of models, so only the busiest are listed."""


def statistics_fields(statistics: Statistics, names: Mapping[str, str]) -> StatisticsReply:
    """Statistics as JSON; ``names`` are the keys' by id. Times are in seconds."""
    return {
        "period_started_at": zulu_or_none(statistics.since),
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
        "by_day": [{"day": zulu(day * _DAY_MS)[:10], **_sums(sums)} for day, sums in sorted(statistics.by_day.items())],
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
