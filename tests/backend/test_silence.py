"""When a loaded model is taken to hang: two limits in a row with nothing heard since the first was sent."""

from __future__ import annotations

import pytest

from service.backend.prompt_rates import PromptRates
from service.backend.silence import Silence
from service.job import Counts

MODEL = "a:latest"


@pytest.fixture
def silence() -> Silence:
    return Silence()


def test_one_call_that_met_its_limit_is_slow_and_two_in_a_row_are_a_model_that_hangs(silence: Silence) -> None:
    assert not silence.met_limit(MODEL, sent_at=100, now=700)
    assert (silence.is_hung(MODEL), silence.hung) == (False, [])
    assert silence.met_limit(MODEL, sent_at=200, now=800)
    assert (silence.is_hung(MODEL), silence.hung) == (True, [MODEL])
    assert not silence.is_hung("other:latest")


@pytest.mark.parametrize("heard_at", [101, 650, 750])
def test_a_byte_of_any_call_since_the_first_was_sent_shows_that_it_is_slow(silence: Silence, heard_at: int) -> None:
    silence.met_limit(MODEL, sent_at=100, now=700)
    silence.voice(MODEL).heard_at = heard_at
    assert not silence.met_limit(MODEL, sent_at=200, now=800)


def test_a_byte_before_the_first_was_sent_shows_nothing(silence: Silence) -> None:
    silence.voice(MODEL).heard_at = 99
    silence.met_limit(MODEL, sent_at=100, now=700)
    assert silence.met_limit(MODEL, sent_at=200, now=800)


def test_the_second_of_one_pair_may_be_the_first_of_the_next(silence: Silence) -> None:
    silence.met_limit(MODEL, sent_at=100, now=700)
    silence.voice(MODEL).heard_at = 150
    assert not silence.met_limit(MODEL, sent_at=200, now=800)
    assert silence.met_limit(MODEL, sent_at=300, now=900)


def test_a_model_is_unloaded_once_until_it_has_been_heard(silence: Silence) -> None:
    for sent_at in (100, 200):
        silence.met_limit(MODEL, sent_at, now=800)
    silence.recovered(MODEL)
    assert not silence.is_hung(MODEL)
    for sent_at in (900, 910, 920):
        assert not silence.met_limit(MODEL, sent_at, now=1_600)
    silence.voice(MODEL).heard_at = 2_000
    assert [silence.met_limit(MODEL, sent_at, now=3_000) for sent_at in (2_100, 2_200)] == [False, True]


def test_the_models_that_are_remembered_are_bounded(silence: Silence) -> None:
    for number in range(1_000):
        silence.met_limit(str(number), 1, 2)
    assert len(silence._voices) == 256


def rates(*replies: tuple[int, int, int]) -> PromptRates:
    """Rates that were learned from bodies of so many bytes, with so many prompt tokens, in so many milliseconds."""
    known = PromptRates()
    for size, tokens, took_ms in replies:
        known.learn(MODEL, size, Counts(prompt_tokens=tokens, prompt_ms=took_ms))
    return known


def test_with_nothing_learned_the_ceiling_is_the_limit() -> None:
    assert rates().limit_seconds(MODEL, 10**6, 7_200) == 7_200


def test_a_body_may_take_ten_times_what_the_models_own_rate_says() -> None:
    known = rates((4_000, 1_000, 10_000))
    assert known.limit_seconds(MODEL, 40_000, 7_200) == 1_000
    assert known.limit_seconds("other:latest", 40_000, 7_200) == 7_200


@pytest.mark.parametrize(("ceiling", "limit"), [(7_200, 600), (300, 300)])
def test_the_limit_is_never_under_600_seconds_or_the_ceiling(ceiling: float, limit: float) -> None:
    assert rates((4_000, 1_000, 2_000)).limit_seconds(MODEL, 400, ceiling) == limit


def test_it_is_never_above_the_ceiling() -> None:
    assert rates((4_000, 1_000, 100_000)).limit_seconds(MODEL, 10**9, 7_200) == 7_200


@pytest.mark.parametrize("teaches_too_much", [(4_000, 1_000, 1_000), (5_000_000, 600, 1_500)])
def test_a_cached_prompt_and_an_image_teach_nothing(teaches_too_much: tuple[int, int, int]) -> None:
    assert rates(teaches_too_much).limit_seconds(MODEL, 40_000, 7_200) == 7_200


def test_a_prompt_that_was_half_cached_does_not_undo_what_was_learned() -> None:
    known = rates((4_000, 1_000, 10_000), (40_000, 10_000, 1_500))
    assert known.limit_seconds(MODEL, 40_000, 7_200) == 1_000
