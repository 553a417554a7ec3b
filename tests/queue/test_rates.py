"""Rates over the last minute."""

from __future__ import annotations

import pytest

from service.metrics.rates import WINDOW_MS, RateMeter

START = 1_700_000_000_000


def test_nothing_has_happened() -> None:
    assert RateMeter().per_second(START) == 0.0


def test_one_event_is_not_taken_for_a_rate() -> None:
    meter = RateMeter()
    meter.add(START)
    assert meter.per_second(START + 1) == pytest.approx(0.2)


def test_a_steady_rate_is_found_and_forgotten_when_it_ends() -> None:
    meter = RateMeter()
    for second in range(600):
        meter.add(START + second * 1000, 3)
    end = START + 599_999
    assert meter.per_second(end) == pytest.approx(3, rel=0.1)
    assert meter.per_second(end + WINDOW_MS // 2) == pytest.approx(1.5, rel=0.2)
    assert meter.per_second(end + 2 * WINDOW_MS) == 0.0


def test_the_first_minute_counts_only_the_time_since_it_began() -> None:
    meter = RateMeter()
    for second in range(11):
        meter.add(START + second * 1000, 2)
    assert meter.per_second(START + 10_000) == pytest.approx(2.2)
