"""The order is fair, bounded and forgiving: simulated time, the real order."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.job import Line, Priority
from service.order import Order, RunnerRow
from tests.order_simulation import BOOSTS_MS, RUNNER, SimulatedQueue

JOB = 10_000
HOUR = 3_600_000
PRIORITIES = st.sampled_from([Priority.HIGH, Priority.NORMAL, Priority.LOW])
COSTS = st.integers(1_000, 60_000)
SEATS = st.integers(1, 4)

quick = settings(max_examples=60, deadline=None)


# The figures of the design: jobs of ten seconds, one seat


def test_a_late_newcomer_among_ten_owners_of_three_hundred_jobs_waits_for_one_of_each() -> None:
    queue = SimulatedQueue()
    for number in range(10):
        queue.submit_all(f"owner {number}", [JOB] * 300)
    late = []
    queue.at(500_000, lambda: late.append(queue.submit("late", JOB)))
    queue.run(until=700_000)
    assert late[0].waited == 100_000
    assert set(queue.passed(late[0]).values()) == {1}


def test_a_low_job_under_endless_high_ones_of_another_owner_waits_two_leads_and_no_more() -> None:
    queue = SimulatedQueue()
    queue.keep_waiting("high", lambda: JOB, lambda: Priority.HIGH)
    low = []
    queue.at(5_000, lambda: low.append(queue.submit("low", JOB, Priority.LOW)))
    queue.run(until=200_000)
    assert low[0].waited == 125_000


def test_an_owner_of_three_priorities_gets_no_more_than_one_lead_once() -> None:
    queue = SimulatedQueue()
    for priority in Priority:
        queue.submit_all("three", [JOB] * 300, priority)
    queue.run(claims=1)
    queue.submit_all("one", [JOB] * 900)
    queue.run(claims=301)
    assert (len(queue.claimed("three")), len(queue.claimed("one"))) == (154, 147)


def test_an_owner_with_a_backlog_is_served_among_endless_newcomers() -> None:
    queue = SimulatedQueue(expected_ms=JOB)
    queue.submit_all("backlog", [JOB] * 50)
    names = (f"newcomer {number}" for number in itertools.count())
    for _ in range(3):
        queue.submit(next(names), JOB)
    # Two come for each that is served: there are ever more of them.
    queue.on_claim = lambda job: [queue.submit(next(names), JOB) for _ in range(2)]
    queue.run(claims=300)
    places = [at for at, job in enumerate(queue.claims) if job.owner == "backlog"]
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert len(places) > 5
    # Each time round, it is passed by those who came during one round: their number doubles and its turn still comes.
    assert all(after <= 2 * before + 2 for before, after in itertools.pairwise(gaps))


# Fair shares


@st.composite
def _job_lists(draw: Any) -> dict[str, list[int]]:
    """Owners and what their jobs cost, again and again."""
    owners = draw(st.integers(2, 5))
    return {f"owner {number}": draw(st.lists(COSTS, min_size=1, max_size=4)) for number in range(owners)}


@quick
@given(_job_lists(), SEATS)
def test_owners_who_wait_without_a_break_are_served_alike(costs: dict[str, list[int]], seats: int) -> None:
    queue = SimulatedQueue(seats)
    for owner, mine in costs.items():
        queue.keep_waiting(owner, itertools.cycle(mine).__next__)
    longest = max(itertools.chain.from_iterable(costs.values()))
    apart = []

    def look() -> None:
        served = [queue.served(owner) for owner in costs]
        apart.append(max(served) - min(served))

    queue.on_event = look
    queue.run(claims=150)
    # What is charged is rounded to a thousandth of a millisecond.
    assert max(apart) <= seats * longest + 1


@quick
@given(_job_lists(), SEATS, st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=5, max_size=5))
def test_weights_divide_the_time(costs: dict[str, list[int]], seats: int, weights: list[float]) -> None:
    queue = SimulatedQueue(seats)
    queue.order.weights = dict(zip(costs, weights, strict=False))
    for owner, mine in costs.items():
        queue.keep_waiting(owner, itertools.cycle(mine).__next__)
    longest = max(itertools.chain.from_iterable(costs.values()))
    apart = []

    def look() -> None:
        served = [queue.served(owner) / queue.order.weights[owner] for owner in costs]
        apart.append(max(served) - min(served))

    queue.on_event = look
    queue.run(claims=150)
    assert max(apart) <= seats * longest / min(queue.order.weights.values()) + 1


# Who passes whom


@quick
@given(
    _job_lists(),
    st.lists(PRIORITIES, min_size=6, max_size=6),
    SEATS,
    st.integers(0, 100),
    COSTS,
    st.one_of(st.none(), COSTS),
)
def test_a_job_is_passed_by_a_bounded_number_of_every_other_owner(
    costs: dict[str, list[int]],
    priorities: list[Priority],
    seats: int,
    claims_before: int,
    cost: int,
    expected: int | None,
) -> None:
    queue = SimulatedQueue(seats, expected_ms=expected)
    for (owner, mine), priority in zip(costs.items(), priorities, strict=False):
        queue.keep_waiting(owner, itertools.cycle(mine).__next__, lambda priority=priority: priority)  # type: ignore[misc]
    queue.run(claims=claims_before)
    job = queue.submit("late", cost, priorities[-1])
    queue.run(start=job)
    lead = max(BOOSTS_MS[one] for one in priorities) - BOOSTS_MS[priorities[-1]]
    estimate = max(queue.charges)
    for owner, passes in queue.passed(job).items():
        least = min(costs[owner])
        # With one seat this is the design's bound. With more, each job that runs may be misjudged either way.
        misjudged = (seats - 1) * max(estimate, least)
        assert passes <= (lead + estimate + misjudged) / least + 1


@quick
@given(st.integers(2, 8), SEATS, st.integers(1, 100), st.integers(0, 9_999))
def test_a_normal_newcomer_is_passed_by_one_job_of_each_owner(
    owners: int, seats: int, claims_before: int, moment: int
) -> None:
    queue = SimulatedQueue(seats, expected_ms=JOB)
    for number in range(owners):
        queue.keep_waiting(f"owner {number}", lambda: JOB)
    queue.run(claims=claims_before)
    late = []
    queue.at(queue.now + moment, lambda: late.append(queue.submit("late", JOB)))
    queue.run(claims=claims_before + 4 * owners + 8)
    assert late[0].started is not None
    assert max(queue.passed(late[0]).values(), default=0) <= 1


@quick
@given(SEATS, st.integers(1, 3), st.lists(COSTS, min_size=1, max_size=5), st.booleans())
def test_an_endless_supply_of_newcomers_starves_nobody(
    seats: int, each_time: int, costs: list[int], is_known: bool
) -> None:
    queue = SimulatedQueue(seats, expected_ms=sum(costs) / len(costs) if is_known else None)
    cost = itertools.cycle(costs)
    queue.submit_all("backlog", [next(cost) for _ in range(10)])
    names = (f"newcomer {number}" for number in itertools.count())

    def more(_: object) -> None:
        for _ in range(each_time):
            queue.submit(next(names), next(cost))

    more(None)
    queue.on_claim = more
    queue.run(claims=60 * seats)
    assert len(queue.claimed("backlog")) >= 2


@quick
@given(_job_lists(), SEATS)
def test_an_owner_idle_for_an_hour_gains_nothing(costs: dict[str, list[int]], seats: int) -> None:
    queue = SimulatedQueue(seats)
    longest = max(itertools.chain.from_iterable(costs.values()))
    others = {owner: itertools.cycle(mine) for owner, mine in costs.items()}
    queue.submit("idle", longest)
    for owner, mine in others.items():
        queue.keep_waiting(owner, mine.__next__)
    queue.run(until=HOUR if longest > 1000 else 100 * longest)
    before = {owner: queue.served(owner) for owner in (*costs, "idle")}
    queue.keep_waiting("idle", lambda: longest)
    ahead = []

    def look() -> None:
        gained = {owner: queue.served(owner) - used for owner, used in before.items()}
        ahead.append(gained["idle"] - min(gained[owner] for owner in costs))

    queue.on_event = look
    queue.run(claims=len(queue.claims) + 60)
    # Each of the others may have been ahead of another by what fair shares may differ in.
    assert max(ahead) <= 2 * seats * longest + 1


def test_an_owner_that_was_alone_is_not_made_to_wait_for_a_newcomer_to_catch_up() -> None:
    queue = SimulatedQueue()
    queue.keep_waiting("alone", lambda: JOB)
    queue.run(until=HOUR)
    queue.keep_waiting("newcomer", lambda: JOB)
    queue.run(until=HOUR + 20 * JOB)
    last = Counter(job.owner for job in queue.claims[-20:])
    assert abs(last["alone"] - last["newcomer"]) <= 1


@quick
@given(st.lists(PRIORITIES, min_size=1, max_size=12), SEATS, COSTS)
def test_several_priorities_gain_at_most_one_lead_and_only_once(
    priorities: list[Priority], seats: int, cost: int
) -> None:
    queue = SimulatedQueue(seats, expected_ms=cost)
    queue.keep_waiting("plain", lambda: cost)
    queue.keep_waiting("mixed", lambda: cost, itertools.cycle(priorities).__next__)
    ahead = []
    queue.on_event = lambda: ahead.append(queue.served("mixed") - queue.served("plain"))
    queue.run(claims=400)
    assert max(ahead) <= BOOSTS_MS[Priority.HIGH] + seats * cost + 1


def test_a_lead_that_was_used_up_does_not_come_back() -> None:
    queue = SimulatedQueue(expected_ms=JOB)
    queue.keep_waiting("plain", lambda: JOB)
    gained = []
    for _ in range(5):
        queue.submit_all("bursts", [JOB] * 10, Priority.HIGH)
        queue.run(until=queue.now + HOUR // 4)
        gained.append(len(queue.claimed("bursts")))
    assert gained == [10, 20, 30, 40, 50]
    # Each burst had to begin where service had got to: in all it led by one boost, not by five.
    last = [job for job in queue.claims if job.owner == "bursts"][-10:]
    assert max(job.waited for job in last) > 100_000


# What a job costs


def test_a_job_cancelled_while_queued_costs_nothing() -> None:
    queue = SimulatedQueue(expected_ms=JOB)
    queue.keep_waiting("other", lambda: JOB)
    jobs = queue.submit_all("owner", [JOB] * 100)
    queue.run(claims=1)
    for job in jobs[1:-1]:
        queue.cancel(job)
    queue.run(claims=4)
    assert [job.owner for job in queue.claims] == ["other", "owner", "other", "owner"]


def test_a_job_cancelled_while_it_runs_costs_what_it_used() -> None:
    queue = SimulatedQueue(expected_ms=JOB)
    jobs = queue.submit_all("owner", [JOB] * 20)
    queue.keep_waiting("other", lambda: JOB)
    queue.at(1_000, lambda: queue.cancel(jobs[0]))
    queue.run(until=1_000 + 19 * JOB)
    # Nine more tenths of a job were left to it, so that it is ahead in jobs by what it lacks in time.
    assert queue.served("owner") - queue.served("other") in (-9_000, 1_000)


def test_a_pick_that_found_no_job_costs_nothing() -> None:
    order = Order(BOOSTS_MS)
    order.restore([RunnerRow(RUNNER, 0.0, JOB, 8)], [])
    waiting: dict[str, dict[int, int]] = {}
    for owner in ("first", "second"):
        order.begin_waiting(Line(RUNNER, owner, 0), 1, waiting)
        waiting[owner] = {0: 5}
    for _ in range(100):
        line = order.pick(RUNNER, waiting)
        assert line is not None
        order.refund(line, order.charge(line, 2))
    before, after = order.share_row(Line(RUNNER, "first", 0)), order.share_row(Line(RUNNER, "second", 0))
    assert (before.served, after.served) == (0.0, 0.0)
    assert order.runner_row(RUNNER).reached == JOB


def test_lines_in_doubt_are_passed_over_and_keep_their_turn() -> None:
    order = Order(BOOSTS_MS)
    waiting: dict[str, dict[int, int]] = {}
    for owner in ("first", "second"):
        order.begin_waiting(Line(RUNNER, owner, 0), 1, waiting)
        waiting[owner] = {0: 5}
    doubtful = {Line(RUNNER, "first", 0)}
    assert order.pick(RUNNER, waiting, doubtful) == Line(RUNNER, "second", 0)
    assert order.pick(RUNNER, waiting) == Line(RUNNER, "first", 0)
    assert order.pick(RUNNER, {"first": {0: 5}}, doubtful) is None


@pytest.mark.parametrize("expected", [None, 5_000, 60_000])
def test_a_wrong_estimate_delays_nobody_by_more_than_itself(expected: float | None) -> None:
    """Jobs of ten milliseconds; before any has ended nobody knows."""
    queue = SimulatedQueue(seats=4, expected_ms=expected)
    queue.keep_waiting("first", lambda: 10)
    queue.run(until=5)
    job = queue.submit("second", 10)
    queue.run(until=100_000)
    assert job.waited <= 5 + (expected or 0)


def test_the_first_end_teaches_and_one_long_job_does_not_make_all_look_long() -> None:
    queue = SimulatedQueue()
    queue.submit_all("owner", [1_000] * 20 + [60_000])
    queue.run(until=1_000)
    assert queue.order.expected_ms(RUNNER) == 1_000
    queue.run()
    assert queue.order.expected_ms(RUNNER) == 1_000 + 59_000 / 8
    assert queue.order.expected_ms("never used") is None


def test_what_ended_early_teaches_nothing_and_what_ran_long_does() -> None:
    queue = SimulatedQueue(expected_ms=1_000)
    short, long = queue.submit_all("owner", [20_000, 20_000])
    queue.at(10, lambda: queue.cancel(short))
    queue.run(until=10)
    assert queue.order.expected_ms(RUNNER) == 1_000
    queue.at(9_010, lambda: queue.cancel(long))
    queue.run()
    assert queue.order.expected_ms(RUNNER) == 2_000


# Runners and restarts


@quick
@given(_job_lists(), SEATS, st.integers(0, 1000))
def test_what_one_model_is_used_for_delays_nobodys_turn_on_another(
    costs: dict[str, list[int]], seats: int, seed: int
) -> None:
    def played(*, with_other: bool) -> list[tuple[str, int | None]]:
        queue = SimulatedQueue(seats)
        other = SimulatedQueue(seats, runner="other:latest")
        other.order = queue.order
        chance = random.Random(seed)
        for owner, mine in costs.items():
            queue.keep_waiting(owner, itertools.cycle(mine).__next__)
            if with_other:
                other.keep_waiting(owner, lambda: chance.randint(1, 60_000), lambda: chance.choice(list(Priority)))
        for step in range(1, 40):
            queue.run(until=step * 5_000)
            other.run(until=step * 5_000)
        return [(job.owner, job.started) for job in queue.claims]

    assert played(with_other=True) == played(with_other=False)


@st.composite
def _queues(draw: Any) -> SimulatedQueue:
    """A queue in the middle of its work: several owners, priorities, leads, corrections; nothing runs."""
    queue = SimulatedQueue(draw(SEATS))
    chance = random.Random(draw(st.integers(0, 1 << 30)))
    used = draw(st.lists(PRIORITIES, min_size=1, max_size=4))
    for number in range(draw(st.integers(1, 6))):
        queue.submit_all(f"owner {number}", [chance.randint(1, 30_000) for _ in range(40)], chance.choice(used))
        queue.submit_all(f"owner {number}", [chance.randint(1, 30_000) for _ in range(10)], chance.choice(used))
    queue.run(claims=draw(st.integers(1, 60)))
    queue.seats = 0
    queue.run()
    return queue


def _sequence(order: Order, waiting: Mapping[str, Mapping[int, int]], now: int) -> Iterator[Line]:
    """The lines whose jobs go next when nobody comes and every job costs what is expected."""
    left = {owner: dict(lines) for owner, lines in waiting.items()}
    while (line := order.pick(RUNNER, left)) is not None:
        order.charge(line, now)
        left[line.owner][line.priority] -= 1
        if not left[line.owner][line.priority]:
            del left[line.owner][line.priority]
        if not left[line.owner]:
            del left[line.owner]
        yield line


@quick
@given(_queues(), st.randoms())
def test_the_order_outlives_a_restart(queue: SimulatedQueue, chance: random.Random) -> None:
    restored = Order(BOOSTS_MS)
    restored.restore(*queue.order.dump())
    lines = [Line(RUNNER, owner, one) for owner, lines in queue.waiting.items() for one in lines]
    chance.shuffle(lines)
    for line in lines:
        restored.keep_waiting(line, queue.now)
    assert list(_sequence(restored, queue.waiting, queue.now)) == list(_sequence(queue.order, queue.waiting, queue.now))


def test_what_is_charged_for_running_jobs_is_not_stored() -> None:
    queue = SimulatedQueue(seats=3, expected_ms=JOB)
    queue.submit_all("owner", [JOB, 5 * JOB, 5 * JOB])
    queue.run(until=JOB)
    row = queue.order.share_row(Line(RUNNER, "owner", 0))
    assert (row.served, row.normal) == (JOB, JOB)
    assert queue.order.runner_row(RUNNER).reached == 3 * JOB


def test_who_has_no_row_begins_after_a_restart_where_service_had_got_to() -> None:
    order = Order(BOOSTS_MS)
    order.restore([RunnerRow(RUNNER, 70_000.0, JOB, 8)], [])
    order.keep_waiting(Line(RUNNER, "newcomer", 0), 1)
    assert order.share_row(Line(RUNNER, "newcomer", 0)).served == 70_000.0


# Forgetting


@quick
@given(_queues(), st.integers(0, 1000))
def test_whoever_is_forgotten_is_the_same_as_a_newcomer(queue: SimulatedQueue, seed: int) -> None:
    gone = next(iter(queue.waiting), None)
    if gone is None:
        return
    waiting = {owner: lines for owner, lines in queue.waiting.items() if owner != gone}
    kept = Order(BOOSTS_MS)
    kept.restore(*queue.order.dump())
    for order in (queue.order, kept):
        for owner, lines in waiting.items():
            for one in lines:
                order.keep_waiting(Line(RUNNER, owner, one), queue.now)
    _, forgotten = queue.order.forget_idle({RUNNER: waiting})
    if (RUNNER, gone) not in forgotten:
        row = kept.share_row(Line(RUNNER, gone, 0))
        assert row.served > kept.runner_row(RUNNER).reached
        return
    if not waiting:
        return
    sequences = []
    for order in (queue.order, kept):
        order.begin_waiting(Line(RUNNER, gone, 0), queue.now + 1, waiting)
        sequences.append(list(_sequence(order, waiting | {gone: {0: 3}}, queue.now + 1)))
    assert sequences[0] == sequences[1]


def test_shares_stay_few_however_many_owners_come_and_go() -> None:
    queue = SimulatedQueue(seats=2)
    queue.keep_waiting("stays", lambda: 7_000)
    names = itertools.count()
    for _ in range(300):
        queue.submit(f"owner {next(names)}", 3_000)
        queue.run(until=queue.now + 10_000)
        queue.order.forget_idle({RUNNER: queue.waiting})
    _, shares = queue.order.dump()
    assert len(shares) < 20


def test_what_runs_or_waits_is_not_forgotten() -> None:
    queue = SimulatedQueue()
    queue.submit_all("both", [JOB, JOB])
    queue.submit("waits", JOB)
    queue.run(until=1)
    queue.order.forget_idle({RUNNER: queue.waiting})
    assert {row.owner for row in queue.order.dump()[1]} == {"both", "waits"}
    queue.run()
    assert queue.order.forget_idle({}) == ([], [(RUNNER, "both"), (RUNNER, "waits")])
    assert queue.order.dump()[1] == []


def test_runners_that_nobody_uses_are_forgotten_beyond_a_thousand() -> None:
    order = Order(BOOSTS_MS)
    for number in range(1_500):
        line = Line(f"model:{number}", "owner", 0)
        order.begin_waiting(line, 1, {})
        order.correct(line, order.charge(line, 1), 10.0, is_typical=True)
    runners, shares = order.forget_idle({})
    assert len(runners) == 500
    assert len(shares) == 1_500
    assert len(order.dump()[0]) == 1_000


# Positions


@settings(max_examples=150, deadline=None)
@given(_queues(), st.booleans())
def test_positions_are_the_real_order_where_jobs_cost_what_is_expected(queue: SimulatedQueue, weighted: bool) -> None:
    order = queue.order
    if weighted:
        order.weights = dict(zip(queue.waiting, (2.0, 0.5, 3.0), strict=False))
    ranks = {
        (line, rank): order.ahead(line, rank, queue.waiting)
        for owner, lines in queue.waiting.items()
        for priority, jobs in lines.items()
        for line in [Line(RUNNER, owner, priority)]
        for rank in range(jobs)
    }
    seen: Counter[Line] = Counter()
    for place, line in enumerate(_sequence(order, queue.waiting, queue.now)):
        assert ranks[line, seen[line]] == place
        seen[line] += 1


def test_the_position_of_a_job_that_nobody_counted_yet_is_behind_its_owners_others() -> None:
    queue = SimulatedQueue()
    queue.submit_all("owner", [JOB] * 4)
    assert queue.order.ahead(Line(RUNNER, "owner", 0), 4, queue.waiting) == 4
    assert queue.order.ahead(Line("unknown", "owner", 0), 2, {}) == 2
    queue.submit_all("other", [JOB] * 4)
    assert queue.order.ahead(Line(RUNNER, "owner", 0), 4, queue.waiting) == 8


@settings(max_examples=10, deadline=None)
@given(st.integers(65, 150), st.integers(0, 300), st.booleans(), st.randoms())
def test_positions_among_very_many_owners_are_about_right(
    owners: int, claims: int, is_mixed: bool, chance: random.Random
) -> None:
    queue = SimulatedQueue(4)
    for number in range(owners):
        costs = [chance.randint(1, 20_000) if is_mixed else JOB for _ in range(chance.choice((3, 4, 20)))]
        queue.submit_all(f"owner {number}", costs, chance.choice(tuple(Priority)) if is_mixed else Priority.NORMAL)
    queue.run(claims=claims)
    late = queue.submit("late", JOB)
    ranks = {
        (line, rank): queue.order.ahead(line, rank, queue.waiting)
        for owner, lines in queue.waiting.items()
        for priority, jobs in lines.items()
        for line in [Line(RUNNER, owner, priority)]
        for rank in range(0, jobs, 3)
    }
    present = len(queue.waiting)
    seen: Counter[Line] = Counter()
    for place, line in enumerate(_sequence(queue.order, queue.waiting, queue.now)):
        rank = ranks.get((line, seen[line]))
        if rank is not None:
            assert abs(rank - place) <= max(place, present) / 6
        if line == late.line and not is_mixed:
            assert rank == place
        seen[line] += 1


# What a turn costs


class _CountingDict(dict[str, dict[int, int]]):
    looks = 0

    def get(self, owner: str, default: Any = None) -> Any:
        self.looks += 1
        return super().get(owner, default)

    def __getitem__(self, owner: str) -> dict[int, int]:
        self.looks += 1
        return super().__getitem__(owner)

    def __iter__(self) -> Iterator[str]:
        for owner in super().__iter__():
            self.looks += 1
            yield owner

    def items(self) -> Any:
        self.looks += len(self)
        return super().items()


@pytest.mark.parametrize("jobs", [1, 1_000])
def test_a_turn_among_a_thousand_owners_looks_at_a_few_of_them(jobs: int) -> None:
    order = Order(BOOSTS_MS)
    waiting = _CountingDict()
    for number in range(1_000):
        owner = f"owner {number}"
        order.begin_waiting(Line(RUNNER, owner, 0), 1, waiting)
        waiting[owner] = {0: jobs}
    order.pick(RUNNER, waiting)
    waiting.looks = 0
    claims = []
    for _ in range(3_000):
        line = order.pick(RUNNER, waiting)
        assert line is not None
        claims.append((line, order.charge(line, 2)))
        if len(claims) >= 5:
            order.correct(*claims.pop(0), 1_000.0, is_typical=True)
    assert waiting.looks < 10 * 3_000


def test_a_position_among_a_thousand_owners_looks_at_a_few_of_them() -> None:
    order = Order(BOOSTS_MS)
    waiting = _CountingDict()
    for number in range(1_000):
        owner = f"owner {number}"
        order.begin_waiting(Line(RUNNER, owner, 0), 1, waiting)
        waiting[owner] = {0: 50}
    waiting.looks = 0
    for number in range(1_000):
        order.ahead(Line(RUNNER, f"owner {number}", 0), 49, waiting)
    assert waiting.looks < 1_000 * 50
