"""The circuit breaker of a backend, with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backend.breaker import Breaker, State
from service.backend.breakers import Breakers


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock, threshold=3, open_seconds=30.0)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.begin()
        breaker.failed()


def test_it_is_closed_until_the_threshold(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert (breaker.state, breaker.lets_through, breaker.faults) == (State.CLOSED, True, 2)
    fail(breaker, 1)
    assert (breaker.state, breaker.lets_through, breaker.begin()) == (State.OPEN, False, False)


def test_a_success_begins_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.state is State.CLOSED


def test_it_stays_open_for_its_time(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    assert breaker.rest_seconds == 30.0
    clock.now += 29.0
    assert (breaker.state, breaker.rest_seconds) == (State.OPEN, 1.0)
    clock.now += 1.0
    assert (breaker.state, breaker.rest_seconds) == (State.HALF_OPEN, 0.0)


def test_half_open_lets_one_probe_through(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 30.0
    assert [breaker.begin(), breaker.begin(), breaker.lets_through] == [True, False, False]


def test_a_probe_that_succeeds_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 30.0
    breaker.begin()
    breaker.succeeded()
    assert (breaker.state, breaker.faults) == (State.CLOSED, 0)
    assert [breaker.begin(), breaker.begin()] == [True, True]


def test_a_probe_that_fails_opens_it_for_another_time(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 40.0
    fail(breaker, 1)
    assert (breaker.state, breaker.rest_seconds) == (State.OPEN, 30.0)


def test_a_probe_that_is_abandoned_makes_room_for_the_next(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 30.0
    breaker.begin()
    breaker.abandoned()
    assert breaker.begin()


def test_faults_of_older_calls_do_not_lengthen_the_time(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 20.0
    breaker.failed()
    assert (breaker.faults, breaker.rest_seconds) == (3, 10.0)


def test_a_server_that_was_away_and_is_back_is_tried_with_one_call_at_once(breaker: Breaker, clock: Clock) -> None:
    breaker.came_back()
    assert breaker.state is State.CLOSED
    fail(breaker, 3)
    clock.now += 2.0
    breaker.came_back()
    assert [breaker.state, breaker.begin(), breaker.begin()] == [State.HALF_OPEN, True, False]
    breaker.failed()
    breaker.came_back()
    assert (breaker.state, breaker.rest_seconds) == (State.OPEN, 30.0)


def test_after_a_success_it_may_come_back_again(breaker: Breaker) -> None:
    for _ in range(2):
        fail(breaker, 3)
        breaker.came_back()
        assert breaker.state is State.HALF_OPEN
        breaker.begin()
        breaker.succeeded()


def test_a_success_of_an_older_call_closes_it(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.succeeded()
    assert breaker.state is State.CLOSED


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    return Breakers(lambda: Breaker(clock, threshold=2, open_seconds=30.0))


def test_a_model_that_fails_keeps_back_its_own_jobs_only(breakers: Breakers, clock: Clock) -> None:
    for _ in range(2):
        breakers.begin("bad")
        opened = breakers.model_failed("bad", "bad")
    assert opened is breakers.failing["bad"]
    assert (breakers.let_through("bad"), breakers.let_through("good")) == (False, True)
    assert (breakers.are_closed_for("bad"), breakers.are_closed_for("good")) == (False, True)
    assert (breakers.server.state, breakers.server.faults) == (State.CLOSED, 0)
    breakers.succeeded("good")
    assert not breakers.let_through("bad")
    clock.now += 30.0
    breakers.begin("bad")
    assert not breakers.let_through("bad")
    breakers.abandoned("bad")
    assert breakers.let_through("bad")
    breakers.begin("bad")
    breakers.succeeded("bad")
    assert breakers.failing == {}


def test_a_trial_that_ends_by_a_fault_of_the_server_is_over(breakers: Breakers, clock: Clock) -> None:
    for _ in range(2):
        breakers.model_failed("bad", "bad")
    clock.now += 30.0
    breakers.begin("bad")
    breakers.server_failed("bad")
    assert not breakers.let_through("bad")
    clock.now += 30.0
    assert breakers.let_through("bad")


def test_two_models_that_fail_one_after_the_other_are_taken_for_the_server(breakers: Breakers) -> None:
    assert breakers.model_failed("one", "1") is None
    assert breakers.model_failed("two", "2") is None
    assert breakers.model_failed("one", "1") is breakers.server
    assert breakers.server.state is State.OPEN


def test_what_failed_before_a_success_makes_no_second_model(breakers: Breakers) -> None:
    breakers.model_failed("flaky", "1")
    breakers.succeeded("good")
    for _ in range(3):
        breakers.model_failed("bad", "2")
    assert (breakers.let_through("bad"), breakers.server.state) == (False, State.CLOSED)


def test_neither_does_another_name_of_the_same_weights_nor_a_model_that_runs_elsewhere(breakers: Breakers) -> None:
    for _ in range(3):
        breakers.model_failed("bad", "1")
        breakers.model_failed("copy of bad", "1")
        breakers.model_failed("x:cloud", None)
    assert [breakers.let_through(model) for model in ("bad", "copy of bad", "x:cloud")] == [False] * 3
    assert breakers.server.state is State.CLOSED


def test_a_model_is_tried_once_when_a_server_that_was_away_is_back(breakers: Breakers) -> None:
    for _ in range(2):
        breakers.model_failed("bad", "bad")
    breakers.came_back()
    assert breakers.let_through("bad")
    breakers.begin("bad")
    breakers.model_failed("bad", "bad")
    breakers.came_back()
    assert not breakers.let_through("bad")


def test_faults_of_the_server_are_no_models(breakers: Breakers) -> None:
    assert breakers.server_failed("any") is None
    assert breakers.server_failed("other") is breakers.server
    assert breakers.failing == {}


@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "well", "model", "server", "left", "wait", "back"]), st.integers(0, 9))
    )
)
def test_no_breaker_stays_shut_for_ever(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    breakers = Breakers(lambda: Breaker(clock, threshold=2, open_seconds=30.0))
    sent: list[str] = []
    ends: dict[str, Callable[[str], object]] = {
        "well": breakers.succeeded,
        "model": lambda model: breakers.model_failed(model, model),
        "server": breakers.server_failed,
        "left": breakers.abandoned,
    }
    for what, number in steps:
        model = "xyz"[number % 3]
        if what == "begin" and breakers.server.lets_through and breakers.let_through(model):
            breakers.begin(model)
            sent.append(model)
        elif what in ends and sent:
            ends[what](sent.pop(number % len(sent)))
        elif what == "wait":
            clock.now += 3.0 * number
        elif what == "back":
            breakers.came_back()
    for model in sent:
        breakers.abandoned(model)
    clock.now += 30.0
    assert breakers.server.lets_through
    assert all(map(breakers.let_through, "xyz"))
