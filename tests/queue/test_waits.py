"""Who waits for what, and since when."""

from __future__ import annotations

import random

import pytest

from service.job import Line, runner_key
from service.queue.waits import MOST_UNLOADED, Waits
from tests.support.placement_simulation import A_LONG, A, B, SimulatedService

PLAIN, LONG = Line(A, "one", 0), Line(A_LONG, "one", 0)
OTHER = Line(A, "two", 0)


def test_whoever_has_waited_longest_stands_first_and_a_turn_begins_the_wait_anew() -> None:
    waits = Waits()
    for now, line in enumerate((PLAIN, OTHER, LONG)):
        waits.begin(line, now)
        # A second job is no second wait.
        waits.begin(line._replace(priority=1), now + 50)
    assert waits.models == {"a:latest": {A: {"one": 0, "two": 1}, A_LONG: {"one": 2}}}
    waits.turn(PLAIN, 100)
    assert list(waits.models["a:latest"][A].items()) == [("two", 1), ("one", 100)]
    assert list(waits.of_owner("one").items()) == [(A_LONG, 2), (A, 100)]
    assert (waits.since(A, "a:latest", 7), waits.since(B, "b:latest", 7)) == (1, 7)


def test_nothing_is_left_of_those_who_wait_no_more() -> None:
    waits = Waits()
    lines = (PLAIN, OTHER, LONG)
    for line in lines:
        waits.begin(line, 1)
    waits.only([PLAIN])
    assert waits.models == {"a:latest": {A: {"one": 1}}}
    for line in lines:
        waits.end(line)
        waits.turn(line, 2)
    assert waits.models == {}
    assert not any(waits.of_owner(owner) for owner in ("one", "two"))


def test_an_owner_is_wide_as_long_as_it_waits_for_more_runners_than_may_be_in_the_order() -> None:
    waits = Waits()
    lines = [Line(runner_key("a", {"num_ctx": 100 + number}), "one", 0) for number in range(MOST_UNLOADED + 1)]
    for line in lines:
        assert not waits.wide
        waits.begin(line, 1)
    assert waits.wide == {"one"}
    waits.end(lines[3])
    assert not waits.wide


@pytest.mark.parametrize("seed", range(10))
def test_whoever_has_a_ready_job_waits_and_nobody_else(seed: int) -> None:
    chance = random.Random(seed)
    service = SimulatedService(max_swap_wait_ms=2_000)
    service.add_backend(seats=chance.randint(1, 3), load_ms=300)
    backlog = service.backlog

    def check() -> None:
        ready = {(line.runner, line.owner) for line in service.waiting_lines}
        waits = {
            (runner, owner)
            for runners in backlog.waits.models.values()
            for runner, owners in runners.items()
            for owner in owners
        }
        assert waits == ready == {(run, one) for run, owners in backlog.gauges.waiting.items() for one in owners}
        by_model: dict[str, dict[str, dict[int, int]]] = {}
        for runner, owners in backlog.gauges.waiting.items():
            for owner, lines in owners.items():
                counts = by_model.setdefault(Line(runner, owner, 0).model, {}).setdefault(owner, {})
                for priority, jobs in lines.items():
                    counts[priority] = counts.get(priority, 0) + jobs
        assert backlog.gauges.waiting_by_model == by_model

    service.on_event = check
    for _ in range(60):
        runner = chance.choice((A, A_LONG, B))
        owner, priority = f"owner {chance.randrange(4)}", chance.choice((-1, 0, 1))
        for _ in range(chance.randint(1, 4)):
            service.submit(runner, chance.randrange(2_000), owner=owner, priority=priority)
        service.run(service.time.now + chance.choice((1, 500, 3_000)))
    service.run()
    assert not backlog.waits.models
