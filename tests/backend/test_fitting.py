"""What fits on a backend together, and whose turn it is."""

from __future__ import annotations

from service.backend.fitting import FittingSets
from service.backend.turns import Turns

A, B, C = "a:latest", "b:latest", "c:latest"


def test_pairs_that_fit_say_nothing_of_all_three() -> None:
    fitting = FittingSets()
    for pair in ({A, B}, {B, C}, {A, C}):
        assert not fitting.fit(pair)
        fitting.remember(pair)
    assert all(fitting.fit(pair) for pair in ({A, B}, {B, C}, {A, C}))
    assert not fitting.fit({A, B, C})
    fitting.remember({A, B, C})
    assert fitting.sets == [frozenset({A, B, C})]
    assert fitting.fit({A, C})


def test_one_alone_always_fits_and_is_no_knowledge() -> None:
    fitting = FittingSets()
    fitting.remember({A})
    assert fitting.sets == []
    assert fitting.fit({A})
    assert fitting.fit(set())


def test_a_doubt_forgets_only_where_both_were_seen() -> None:
    fitting = FittingSets()
    fitting.remember({A, B})
    fitting.remember({B, C})
    fitting.doubt(A, {B})
    assert fitting.sets == [frozenset({B, C})]
    fitting.doubt(A, {C})
    assert fitting.sets == [frozenset({B, C})]


def test_as_many_sets_are_remembered_as_have_a_place_the_latest_ones() -> None:
    fitting = FittingSets()
    for number in range(1_000):
        fitting.remember({A, str(number)})
    assert len(fitting.sets) < 100
    assert fitting.fit({A, "999"})
    assert not fitting.fit({A, "0"})


def test_other_names_keep_what_is_known() -> None:
    fitting = FittingSets()
    fitting.remember({A, B})
    fitting.rename(lambda runner: C if runner == A else runner)
    assert fitting.sets == [frozenset({B, C})]


def test_the_turn_counts_before_the_age_of_the_jobs() -> None:
    turns = Turns()
    waiting = {A: 10, B: 20, C: 30}
    assert turns.longest_without(waiting, waiting) == A
    turns.note(A, 100)
    assert turns.longest_without(waiting, waiting) == B
    turns.note(B, 200)
    assert turns.longest_without(waiting, waiting) == C
    turns.note(C, 300)
    assert turns.longest_without(waiting, waiting) == A


def test_fewer_seats_count_before_turns() -> None:
    turns = Turns()
    waiting = {A: 10, B: 20, C: 30}
    turns.note(C, 100)
    assert sorted(waiting, key=turns.by_seats({A: 2, B: 1}, waiting)) == [C, B, A]
    assert sorted(waiting, key=turns.by_seats({}, waiting)) == [A, B, C]
