"""What becomes of a job after a failed attempt: the whole table of decisions, and what holds of all of them."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.config import RetryConfig
from service.errors import BackendError, Fault
from service.workers.retry_policy import Elsewhere, Fail, Failure, TryAgain, decide

RETRY = RetryConfig(initial_seconds=1, factor=2, cap_seconds=3, max_retries=3, poison_failures=2)
CHANCE = 0.5
CODE, WORDS = "a_code", "the backend's words"

AS_TOLD = Fail(CODE, WORDS)
CALLER_MAY_TRY_AGAIN = Fail(CODE, WORDS, is_worth_retrying=True)
POISON = Fail("poison", f"the model or its runner failed 2 times under this prompt: {WORDS}")
SOMEWHERE_ELSE = TryAgain(1_000)
WHEN_SOMEBODY_ANSWERS = TryAgain(None)
WHEN_IT_IS_LESS_BUSY = TryAgain(500)


class Case(NamedTuple):
    """All that a decision depends on, but for the configuration."""

    fault: Fault
    has_caller: bool
    is_sent: bool
    failures: int
    crashes: int
    holds_busy: bool
    elsewhere: Elsewhere

    def decided(self, retry: RetryConfig = RETRY, chance: float = CHANCE) -> Fail | TryAgain:
        error = BackendError(WORDS, code=CODE, fault=self.fault)
        failure = Failure(error, self.failures, self.crashes, self.has_caller, self.is_sent, self.elsewhere)
        return decide(failure, retry, holds_busy=self.holds_busy, chance=lambda: chance)


class Row(NamedTuple):
    """What is decided where the values are among these, and no row above says otherwise; None: whatever they are."""

    then: Fail | TryAgain
    fault: tuple[Fault, ...] | None = None
    has_caller: tuple[bool, ...] | None = None
    is_sent: tuple[bool, ...] | None = None
    failures: tuple[int, ...] | None = None
    crashes: tuple[int, ...] | None = None
    holds_busy: tuple[bool, ...] | None = None
    elsewhere: tuple[Elsewhere, ...] | None = None

    def is_of(self, case: Case) -> bool:
        return all(allowed is None or value in allowed for allowed, value in zip(self[1:], case, strict=True))


TABLE = {
    "a caller has its first byte": Row(AS_TOLD, is_sent=(True,)),
    "another backend serves the model": Row(SOMEWHERE_ELSE, elsewhere=(Elsewhere.SERVED,)),
    "another backend may have the model": Row(SOMEWHERE_ELSE, elsewhere=(Elsewhere.PERHAPS,), has_caller=(False,)),
    "busy, and its caller is not to wait for that": Row(
        CALLER_MAY_TRY_AGAIN, fault=(Fault.BUSY,), has_caller=(True,), holds_busy=(False,)
    ),
    "nobody answers": Row(WHEN_SOMEBODY_ANSWERS, fault=(Fault.ABSENT,)),
    "busy": Row(WHEN_IT_IS_LESS_BUSY, fault=(Fault.BUSY,)),
    "what the model wrote failed after a crash, or twice": Row(AS_TOLD, fault=(Fault.OUTPUT,), crashes=(1,)),
    "the second crash": Row(POISON, fault=(Fault.RUNNER,), crashes=(1,)),
    "it would fail again": Row(AS_TOLD, fault=(Fault.PERMANENT,)),
    "Ollama has ended the answer on purpose": Row(AS_TOLD, fault=(Fault.ENDED,)),
    "its retries are used up": Row(AS_TOLD, failures=(3, 4)),
    "the first failure": Row(TryAgain(500, failures=1), fault=(Fault.TRANSIENT,), failures=(0,)),
    "the second failure": Row(TryAgain(1_000, failures=1), fault=(Fault.TRANSIENT,), failures=(1,)),
    "the third failure, with a pause at its cap": Row(
        TryAgain(1_500, failures=1), fault=(Fault.TRANSIENT,), failures=(2,)
    ),
    "the first crash, or bad output, is the first failure": Row(
        TryAgain(500, 1, crashes=1), fault=(Fault.RUNNER, Fault.OUTPUT), failures=(0,)
    ),
    "the first crash, or bad output, is the second failure": Row(
        TryAgain(1_000, 1, crashes=1), fault=(Fault.RUNNER, Fault.OUTPUT), failures=(1,)
    ),
    "the first crash, or bad output, is the third failure": Row(
        TryAgain(1_500, 1, crashes=1), fault=(Fault.RUNNER, Fault.OUTPUT), failures=(2,)
    ),
}

CASES = [
    Case(*values)
    for values in itertools.product(Fault, (False, True), (False, True), range(5), (0, 1), (False, True), Elsewhere)
]

quick = settings(deadline=None)
EVERY_CASE = st.sampled_from(CASES)
RETRIES = st.builds(
    lambda initial, more, factor, most, crashes: RetryConfig(
        initial_seconds=initial,
        cap_seconds=min(86_400, initial + more),
        factor=factor,
        max_retries=most,
        poison_failures=crashes,
    ),
    st.floats(0.001, 86_400),
    st.floats(0, 86_400),
    st.floats(1, 100),
    st.integers(0, 1000),
    st.integers(1, 10),
)
CHANCES = st.floats(0, 1, exclude_max=True)


def cases_of_rows() -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {name: [] for name in TABLE}
    for case in CASES:
        found[next(name for name, row in TABLE.items() if row.is_of(case))].append(case)
    return found


CASES_OF = cases_of_rows()


@pytest.mark.parametrize("name", TABLE)
def test_each_row_of_the_table_is_decided_as_it_says(name: str) -> None:
    cases = CASES_OF[name]
    assert cases
    assert {case: case.decided() for case in cases} == dict.fromkeys(cases, TABLE[name].then)


@quick
@given(EVERY_CASE, RETRIES, CHANCES)
def test_a_job_whose_caller_has_a_byte_is_never_tried_again(case: Case, retry: RetryConfig, chance: float) -> None:
    assert case._replace(is_sent=True).decided(retry, chance) == AS_TOLD


@quick
@given(EVERY_CASE, st.integers(0, 1000), RETRIES, CHANCES)
def test_a_pause_is_at_least_nothing_and_at_most_the_cap(
    case: Case, failures: int, retry: RetryConfig, chance: float
) -> None:
    decision = case._replace(failures=failures, elsewhere=Elsewhere.NOWHERE).decided(retry, chance)
    if isinstance(decision, TryAgain) and decision.pause_ms is not None:
        assert 0 <= decision.pause_ms <= retry.cap_seconds * 1000


@quick
@given(st.integers(0, 999), RETRIES, CHANCES)
def test_the_same_chance_never_makes_a_later_pause_shorter(failures: int, retry: RetryConfig, chance: float) -> None:
    retry = retry.model_copy(update={"max_retries": 1000})
    earlier, later = (
        Case(Fault.TRANSIENT, False, False, count, 0, True, Elsewhere.NOWHERE).decided(retry, chance)
        for count in (failures, failures + 1)
    )
    assert isinstance(earlier, TryAgain)
    assert earlier.pause_ms is not None
    if isinstance(later, TryAgain):
        assert later.pause_ms is not None
        assert later.pause_ms >= earlier.pause_ms


@quick
@given(st.lists(EVERY_CASE, max_size=30), RETRIES, CHANCES)
def test_a_job_is_tried_again_after_so_many_failures_and_crashes_and_no_more(
    cases: list[Case], retry: RetryConfig, chance: float
) -> None:
    failures = crashes = 0
    for case in cases:
        decision = case._replace(failures=failures, crashes=crashes).decided(retry, chance)
        if isinstance(decision, Fail):
            break
        failures += decision.failures
        crashes += decision.crashes
        assert decision.crashes <= decision.failures <= 1
    assert failures <= retry.max_retries
    # What the model writes is asked for once more, also where one crash is poison.
    assert crashes < max(2, retry.poison_failures)


@quick
@given(EVERY_CASE, RETRIES, CHANCES)
def test_only_transient_faults_crashes_and_bad_output_count_as_failures(
    case: Case, retry: RetryConfig, chance: float
) -> None:
    decision = case.decided(retry, chance)
    if isinstance(decision, TryAgain) and decision.failures:
        assert case.fault in (Fault.TRANSIENT, Fault.RUNNER, Fault.OUTPUT)
        assert decision.crashes == (case.fault is not Fault.TRANSIENT)


@quick
@given(st.lists(EVERY_CASE, max_size=10), RETRIES, CHANCES)
def test_what_the_model_writes_is_asked_for_at_most_once_more_and_is_never_poison(
    cases: list[Case], retry: RetryConfig, chance: float
) -> None:
    failures = crashes = asked = 0
    for case in (one._replace(fault=Fault.OUTPUT, elsewhere=Elsewhere.NOWHERE) for one in cases):
        decision = case._replace(failures=failures, crashes=crashes).decided(retry, chance)
        if isinstance(decision, Fail):
            assert decision == AS_TOLD
            break
        asked, failures, crashes = asked + 1, failures + decision.failures, crashes + decision.crashes
    assert asked <= min(1, retry.max_retries)


@quick
@given(EVERY_CASE, RETRIES, CHANCES)
def test_a_job_that_nobody_was_sent_a_byte_of_is_held_while_no_backend_answers(
    case: Case, retry: RetryConfig, chance: float
) -> None:
    held = case._replace(fault=Fault.ABSENT, is_sent=False, elsewhere=Elsewhere.NOWHERE)
    assert held.decided(retry, chance) == TryAgain(None)


@quick
@given(EVERY_CASE, RETRIES, CHANCES)
def test_what_would_fail_again_is_never_sent_to_the_same_backend_again(
    case: Case, retry: RetryConfig, chance: float
) -> None:
    permanent = case._replace(fault=Fault.PERMANENT, elsewhere=Elsewhere.NOWHERE)
    assert permanent.decided(retry, chance) == AS_TOLD


@quick
@given(EVERY_CASE, RETRIES, CHANCES)
def test_a_caller_is_asked_to_try_again_only_where_we_do_not(case: Case, retry: RetryConfig, chance: float) -> None:
    decision = case.decided(retry, chance)
    if isinstance(decision, Fail) and decision.is_worth_retrying:
        assert case.fault is Fault.BUSY
        assert case.has_caller
        assert not case.holds_busy
        assert not case.is_sent


@quick
@given(EVERY_CASE, RETRIES, CHANCES)
def test_a_failure_is_told_in_the_backends_words(case: Case, retry: RetryConfig, chance: float) -> None:
    decision = case.decided(retry, chance)
    if isinstance(decision, Fail):
        assert WORDS in decision.message
        assert decision.code in (CODE, "poison")


def test_a_pause_that_grows_beyond_all_numbers_stays_at_its_cap() -> None:
    retry = RetryConfig(initial_seconds=1, factor=100, cap_seconds=16, max_retries=1000)
    case = Case(Fault.TRANSIENT, False, False, 200, 0, True, Elsewhere.NOWHERE)
    assert case.decided(retry) == TryAgain(8_000, failures=1)
