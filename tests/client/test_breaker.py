"""The circuit breaker of a backend, with a clock that the test turns."""

from __future__ import annotations

import pytest

from corral.breaker import Breaker, State


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
        breaker.failed(is_trial=not breaker.is_closed)


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
    breaker.failed(is_trial=True)
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


def test_a_late_fault_of_an_older_call_does_not_end_the_trial(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 30.0
    breaker.begin()
    assert not breaker.failed()
    assert [breaker.state, breaker.begin(), breaker.begin(at_once=True)] == [State.HALF_OPEN, False, False]


def test_a_call_whose_like_has_not_failed_is_its_trial_at_once_one_at_a_time(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 10.0
    assert [breaker.begin(), breaker.begin(at_once=True), breaker.begin(at_once=True)] == [False, True, False]
    assert not breaker.failed(is_trial=True)
    # The rest of those whose like has failed goes on as it was.
    assert (breaker.state, breaker.rest_seconds) == (State.OPEN, 20.0)
    assert breaker.begin(at_once=True)
    breaker.succeeded()
    assert breaker.state is State.CLOSED
