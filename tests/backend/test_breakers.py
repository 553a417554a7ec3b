"""Whose fault a failure is, what counts as evidence of it, and whom an open breaker keeps back."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.breaker import Breaker, State
from service.backend.breakers import NO_TRIAL, Breakers, Evidence, Trial
from service.backend.classification import failure_of
from service.errors import BackendError, Fault
from tests.client.test_breaker import Clock

CRASH = failure_of(
    500, b'{"error":"model runner has unexpectedly stopped, check logs"}', "application/json", "/api/chat"
)
LOST = BackendError("the connection was lost", code="connection_lost", fault=Fault.TRANSIENT)
UNKNOWN = BackendError("what nobody knows", code="backend_error", fault=Fault.TRANSIENT, status=200, is_known=False)
ANYBODY = "somebody whose jobs have never failed"

_numbers = itertools.count()


def job(owner: str = "owner") -> Evidence:
    """A job like no other."""
    number = next(_numbers)
    return Evidence(f"job {number}", owner, number)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    return Breakers(lambda: Breaker(clock, threshold=2, open_seconds=30.0))


def open_model(breakers: Breakers, model: str = "bad", *owners: str) -> None:
    """Have this model's breaker opened by two jobs."""
    for owner in owners or ("owner",) * 2:
        breakers.model_failed(model, model, job(owner))
    assert not breakers.failing[model].is_closed


def test_a_model_that_fails_keeps_back_its_own_jobs_only(breakers: Breakers, clock: Clock) -> None:
    for _ in range(2):
        breakers.begin("bad", "owner")
        opened = breakers.model_failed("bad", "bad", job())
    assert opened is breakers.failing["bad"]
    assert (breakers.let_through("bad"), breakers.let_through("good")) == (False, True)
    assert (breakers.are_closed_for("bad"), breakers.are_closed_for("good")) == (False, True)
    assert (breakers.server.state, breakers.server.faults) == (State.CLOSED, 0)
    breakers.succeeded("good")
    assert not breakers.let_through("bad")
    clock.now += 30.0
    trial = breakers.begin("bad", "owner")
    assert (trial, breakers.let_through("bad")) == (Trial(model=True), False)
    breakers.abandoned("bad", trial)
    assert breakers.let_through("bad")
    breakers.begin("bad", "owner")
    breakers.succeeded("bad")
    assert breakers.failing == {}


def test_an_open_breaker_keeps_back_only_the_owners_whose_jobs_have_failed(breakers: Breakers) -> None:
    open_model(breakers, "bad", "one", "two")
    assert [breakers.may_begin("bad", owner) for owner in ("one", "two", ANYBODY)] == [False, False, True]
    trial = breakers.begin("bad", ANYBODY)
    assert trial == Trial(model=True)
    # One at a time.
    assert not breakers.may_begin("bad", "a third")
    breakers.model_failed("bad", "bad", job(ANYBODY), trial)
    assert [breakers.may_begin("bad", owner) for owner in (ANYBODY, "a third")] == [False, True]
    breakers.begin("bad", "a third")
    breakers.succeeded("bad")
    assert all(breakers.may_begin("bad", owner) for owner in ("one", "two", ANYBODY))


def test_the_servers_breaker_keeps_back_only_such_owners_too(breakers: Breakers) -> None:
    for _ in range(2):
        breakers.server_failed("any", job())
    assert [breakers.may_begin("any", "owner"), breakers.may_begin("any", ANYBODY)] == [False, True]
    assert breakers.begin("any", ANYBODY) == Trial(server=True)


def test_one_job_that_fails_again_and_again_opens_nothing(breakers: Breakers) -> None:
    same = job()
    for _ in range(9):
        assert breakers.model_failed("bad", "bad", same) is None
        assert breakers.server_failed("bad", same) is None
    assert breakers.are_closed_for("bad")


def test_a_server_that_is_not_there_is_no_jobs_fault_and_counts_each_time(breakers: Breakers) -> None:
    gone, same = BackendError("nobody answers", code="connect_failed", fault=Fault.ABSENT), job()
    assert breakers.failed("any", "any", gone, same) is None
    assert breakers.failed("any", "any", gone, same) is breakers.server


def test_neither_do_jobs_with_one_body(breakers: Breakers) -> None:
    for number in range(9):
        assert breakers.model_failed("bad", "bad", Evidence(str(number), f"owner {number}", 1)) is None
    assert breakers.are_closed_for("bad")


def test_a_success_or_a_token_in_between_makes_what_failed_before_no_evidence(breakers: Breakers) -> None:
    for between in (breakers.succeeded, breakers.spoke):
        breakers.model_failed("bad", "bad", job())
        between("bad")
        breakers.model_failed("bad", "bad", job())
        between("bad")
    assert breakers.failing == {}


def test_a_token_does_not_close_an_open_breaker_and_a_success_does(breakers: Breakers) -> None:
    open_model(breakers)
    breakers.spoke("bad")
    assert not breakers.may_begin("bad", "owner")
    breakers.succeeded("bad")
    assert breakers.may_begin("bad", "owner")


def test_a_trial_of_one_that_has_failed_before_makes_it_rest_again(breakers: Breakers, clock: Clock) -> None:
    same = job()
    breakers.model_failed("bad", "bad", same)
    breakers.model_failed("bad", "bad", job())
    clock.now += 30.0
    assert breakers.failed_before("bad", "owner") >= {same.job_id}
    trial = breakers.begin("bad", "owner")
    assert breakers.model_failed("bad", "bad", same, trial) is breakers.failing["bad"]
    assert (breakers.failing["bad"].rest_seconds, breakers.may_begin("bad", "owner")) == (30.0, False)


def test_jobs_are_passed_over_for_their_own_owners_trial_only(breakers: Breakers) -> None:
    one = job("one")
    breakers.model_failed("bad", "bad", one)
    assert breakers.failed_before("bad", "one") == set()
    breakers.model_failed("bad", "bad", other := job("other"))
    assert breakers.failed_before("bad", "one") == {one.job_id, other.job_id}
    assert breakers.failed_before("bad", ANYBODY) == breakers.failed_before("good", "one") == set()


def test_a_trial_that_ends_by_a_fault_of_the_server_is_over(breakers: Breakers, clock: Clock) -> None:
    open_model(breakers)
    clock.now += 30.0
    breakers.server_failed("bad", job(), breakers.begin("bad", "owner"))
    assert not breakers.let_through("bad")
    clock.now += 30.0
    assert breakers.let_through("bad")


def test_two_models_that_fail_one_after_the_other_are_taken_for_the_server(breakers: Breakers) -> None:
    assert breakers.model_failed("one", "1", job()) is None
    assert breakers.model_failed("two", "2", job()) is None
    assert breakers.model_failed("one", "1", job()) is breakers.server
    assert breakers.server.state is State.OPEN


def test_what_failed_before_a_success_makes_no_second_model(breakers: Breakers) -> None:
    breakers.model_failed("flaky", "1", job())
    breakers.succeeded("good")
    for _ in range(3):
        breakers.model_failed("bad", "2", job())
    assert (breakers.let_through("bad"), breakers.server.state) == (False, State.CLOSED)


def test_neither_does_another_name_of_the_same_weights_nor_a_model_that_runs_elsewhere(breakers: Breakers) -> None:
    for _ in range(3):
        breakers.model_failed("bad", "1", job())
        breakers.model_failed("copy of bad", "1", job())
        breakers.model_failed("x:cloud", None, job())
    assert [breakers.let_through(model) for model in ("bad", "copy of bad", "x:cloud")] == [False] * 3
    assert breakers.server.state is State.CLOSED


def test_a_model_is_tried_once_when_a_server_that_was_away_is_back(breakers: Breakers) -> None:
    open_model(breakers)
    breakers.came_back()
    assert breakers.let_through("bad")
    breakers.model_failed("bad", "bad", job(), breakers.begin("bad", "owner"))
    breakers.came_back()
    assert not breakers.let_through("bad")


def test_faults_of_the_server_are_no_models(breakers: Breakers) -> None:
    assert breakers.server_failed("any", job()) is None
    assert breakers.server_failed("other", job()) is breakers.server
    assert breakers.failing == {}


@pytest.mark.parametrize("fault", [Fault.PERMANENT, Fault.BUSY, Fault.OUTPUT, Fault.ENDED])
def test_what_is_refused_or_badly_written_is_evidence_against_nobody(breakers: Breakers, fault: Fault) -> None:
    error = BackendError("the caller's", code="refused", fault=fault, status=500)
    for _ in range(9):
        assert breakers.failed("any", "any", error, job()) is None
    assert breakers.failing == {}
    assert breakers.server.faults == 0


def test_a_refusal_shows_that_the_server_is_there_and_says_nothing_of_the_model(
    breakers: Breakers, clock: Clock
) -> None:
    refusal = BackendError("the caller's", code="refused", fault=Fault.PERMANENT, status=400)
    for _ in range(2):
        breakers.server_failed("any", job())
    breakers.failed("any", "any", refusal, job(ANYBODY), breakers.begin("any", ANYBODY))
    assert breakers.server.is_closed
    open_model(breakers)
    trial = breakers.begin("bad", ANYBODY)
    breakers.failed("bad", "bad", refusal, job(ANYBODY), trial)
    assert not breakers.may_begin("bad", "owner")
    assert breakers.may_begin("bad", ANYBODY)


def test_what_nobody_knows_is_evidence_before_a_token_and_not_after_one(breakers: Breakers) -> None:
    for _ in range(9):
        assert breakers.failed("any", "any", UNKNOWN, job(), has_spoken=True) is None
    assert breakers.are_closed_for("any")
    breakers.failed("any", "any", UNKNOWN, job())
    assert breakers.failed("any", "any", UNKNOWN, job()) is not None


def test_a_lost_connection_is_the_servers_and_a_crash_is_the_models(breakers: Breakers) -> None:
    for _ in range(2):
        crashed = breakers.failed("one", "one", CRASH, job())
        lost = breakers.failed("other", "other", LOST, job())
    assert (crashed, lost) == (breakers.failing["one"], breakers.server)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "begin", "well", "token", "model", "server", "refused", "left", "wait", "back"]),
            st.integers(0, 9),
        )
    )
)
def test_no_breaker_stays_shut_for_ever(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    breakers = Breakers(lambda: Breaker(clock, threshold=2, open_seconds=30.0))
    sent: list[tuple[str, str, Trial]] = []
    ends: dict[str, Callable[[str, str, Trial], object]] = {
        "well": lambda model, owner, trial: breakers.succeeded(model),
        "model": lambda model, owner, trial: breakers.model_failed(model, model, job(owner), trial),
        "server": lambda model, owner, trial: breakers.server_failed(model, job(owner), trial),
        "refused": lambda model, owner, trial: breakers.refused(model, trial),
        "left": lambda model, owner, trial: breakers.abandoned(model, trial),
    }
    for what, number in steps:
        model, owner = "xyz"[number % 3], "abcd"[number % 4]
        if what == "begin" and breakers.may_begin(model, owner):
            trial = breakers.begin(model, owner)
            assert trial == NO_TRIAL or not breakers.may_begin(model, "anybody")
            sent.append((model, owner, trial))
        elif what in ends and sent:
            ends[what](*sent.pop(number % len(sent)))
        elif what == "token":
            breakers.spoke(model)
        elif what == "wait":
            clock.now += 3.0 * number
        elif what == "back":
            breakers.came_back()
    for model, _, trial in sent:
        breakers.abandoned(model, trial)
    assert all(breakers.may_begin(model, "anybody") for model in "xyz")
    clock.now += 30.0
    assert all(map(breakers.let_through, "xyz"))
