"""When a waiting job will begin: a guess, made afresh whenever somebody asks.

It follows from the jobs that go before, from what jobs of their runners have taken, from what is left of those that
run, from the seats that can serve the job, and from the load that is still to come where its model is not loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from service.backend.placement import is_remote
from service.backend.pool import Backend, Pool
from service.clock import Clock
from service.job import Line, model_of_runner
from service.queue.backlog import Backlog
from service.scheduling.candidates import is_anywhere

_MOST_RUNNERS = 100
"""How many runners a guess looks at, when jobs for more of them wait."""


class Estimates:
    """When waiting jobs will begin."""

    def __init__(self, backlog: Backlog, pool: Pool, clock: Clock) -> None:
        self._backlog = backlog
        self._pool = pool
        self._clock = clock

    def ahead(self, line: Line, rank: int) -> int:
        """How many ready jobs of the model go before the one that has ``rank`` jobs ahead in its own line."""
        own_before: list[str] = []
        if self._backlog.waits.is_mixed(line):
            # An owner has what is loaded before the rest, and of the rest what it has waited for longest.
            is_loaded = is_anywhere(self._pool, line.runner)
            is_later = False
            for runner in islice(self._backlog.waits.of_owner(line.owner), _MOST_RUNNERS):
                is_later = is_later or runner == line.runner
                if runner == line.runner or model_of_runner(runner) != line.model:
                    continue
                is_before = is_anywhere(self._pool, runner)
                if is_before > is_loaded or (is_before == is_loaded and not is_later):
                    own_before.append(runner)
        return self._backlog.ahead(line, rank, own_before)

    def start_seconds(self, runner: str, ahead: int) -> float | None:
        """In how many seconds a job will begin when ``ahead`` jobs of its model go before it.

        None while no backend serves its model.
        """
        backends = self._pool.serving(runner)
        if not backends:
            return None
        resident = [one for one in backends if _has(one, runner)]
        needs_room = not all(is_remote(runner, one.placement.remote) for one in resident)
        held_ms = min(map(self._hold_ms, resident), default=0.0) if needs_room else 0.0
        if held_ms:
            wait_ms = held_ms + self._own_ms(resident, runner, ahead)
        elif resident:
            wait_ms = self._load_left_ms(resident, runner) + self._turn_ms(resident, runner, ahead)
            wait_ms += min(ahead, self._overdue_runners(resident, runner)) * self._pool.load_ms(runner)
        else:
            wait_ms = min(self._swap_ms(one, runner, ahead) for one in backends)
        return round(wait_ms / 1000, 1)

    def _turn_ms(self, backends: list[Backend], runner: str, ahead: int) -> float:
        """Until a seat is free after all that go before; jobs of other loaded models take turns with these."""
        expected_ms = self._backlog.expected_ms(runner)
        jobs, work_ms = ahead, ahead * expected_ms
        counts = self._backlog.gauges.ready_by_runner
        if len(counts) > (runner in counts):
            for other in {loaded for one in backends for loaded in _others_loaded(one, runner)}:
                between = min(counts.get(other, 0), ahead + 1)
                jobs += between
                work_ms += between * self._backlog.expected_ms(other)
        if jobs < sum(self._pool.free_seats_for(one, runner) for one in backends):
            return 0.0
        left_ms = [left for one in backends for left in self._seats_left_ms(one, runner)]
        return _begins_ms(left_ms, jobs, (work_ms + expected_ms) / (jobs + 1))

    def _seats_left_ms(self, backend: Backend, runner: str) -> list[float]:
        """When each of the seats that this runner may have will be free."""
        placement, seats = backend.placement, self._pool.seats_for(backend, runner)
        own = model_of_runner(placement.own(runner))
        in_the_way: Collection[str] = placement.in_flight
        if backend.free_seats > 0:
            in_the_way = [one for one in in_the_way if model_of_runner(placement.own(one)) == own]
        taken = max(0, seats - self._pool.free_seats_for(backend, runner))
        left_ms = sorted(self._left_ms(backend, in_the_way))[:taken]
        left_ms += [self._backlog.expected_ms(runner)] * (taken - len(left_ms))
        return [0.0] * (seats - taken) + left_ms

    def _left_ms(self, backend: Backend, runners: Iterable[str]) -> list[float]:
        """What is left of each answer that runs there for these runners: of one that is not sent yet, the whole."""
        now, sent = self._clock.now_ms(), Counter[str]()
        wanted, left_ms = set(runners), []
        for call in backend.placement.holds.calls:
            if call.runner in wanted:
                sent[call.runner] += 1
                left_ms.append(max(0.0, call.sent_at + self._backlog.expected_ms(call.runner) - now))
        for runner in wanted:
            left_ms += [self._backlog.expected_ms(runner)] * (backend.placement.in_flight[runner] - sent[runner])
        return left_ms

    def _own_ms(self, backends: list[Backend], runner: str, ahead: int) -> float:
        """For a runner that finds all seats empty when its model is loaded."""
        return (ahead // self._seats(backends, runner)) * self._backlog.expected_ms(runner)

    def _swap_ms(self, backend: Backend, runner: str, ahead: int) -> float:
        """For a runner that is not loaded. The loaded models work on until nothing waits for them or it is overdue, and
        then finish their running jobs. Models that have waited longer are loaded first; then come the jobs of its own
        model that go before, some of them with loads of their own.
        """
        placement, now, waits, model = (
            backend.placement,
            self._clock.now_ms(),
            self._backlog.waits,
            model_of_runner(runner),
        )
        mine = waits.since(runner, model, now)
        work_ms, before_ms, loads = 0.0, 0.0, 0
        earlier: set[str] = set()
        for other, waiting in islice(self._backlog.gauges.ready_by_runner.items(), _MOST_RUNNERS):
            theirs = model_of_runner(other)
            if other == runner or not backend.has_model(theirs):
                continue
            own_ms = waiting * self._backlog.expected_ms(other) / self._seats([backend], other)
            if placement.is_loaded(other):
                work_ms += own_ms
                ahead -= min(ahead, waiting) if theirs == model else 0
            elif theirs == model:
                loads += 1
            elif waits.since(other, theirs, now) < mine and theirs not in earlier:
                earlier.add(theirs)
                load_ms = self._pool.load_ms(other)
                before_ms += load_ms + min(own_ms, load_ms)
        overdue_ms = max(0.0, mine + placement.max_swap_wait_ms - now)
        drain_ms = max(self._hold_ms(backend), *self._left_ms(backend, placement.in_flight), 0.0)
        loads_ms = (1 + min(loads, ahead)) * self._pool.load_ms(runner)
        return min(work_ms, overdue_ms) + drain_ms + before_ms + loads_ms + self._own_ms([backend], runner, ahead)

    def _overdue_runners(self, backends: list[Backend], runner: str) -> int:
        """How many runners of the model somebody has waited for so long that they may be loaded in this one's place."""
        now, model = self._clock.now_ms(), model_of_runner(runner)
        runners = self._backlog.waits.models.get(model, {})
        if len(runners) <= (runner in runners):
            return 0
        wait_ms = min(one.placement.max_swap_wait_ms for one in backends)
        return sum(
            now - next(iter(owners.values())) >= wait_ms and not is_anywhere(self._pool, other)
            for other, owners in islice(runners.items(), _MOST_RUNNERS)
        )

    def _hold_ms(self, backend: Backend) -> float:
        """How long sends are still held there for a load, taken to wait for the answers that ran when it began.

        One that has fitted before is taken to do so again, for as long as it takes.
        """
        hold, now = backend.placement.holds.hold, self._clock.now_ms()
        if hold is None:
            return 0.0
        load_ms = self._pool.load_ms(hold.asked)
        if not hold.is_trial and now - hold.begun_at < load_ms:
            return load_ms - (now - hold.begun_at)
        if hold.freed_at is not None:
            return max(0.0, load_ms - (now - hold.freed_at))
        others = (one for one in backend.placement.in_flight if one != hold.asked)
        return max(self._left_ms(backend, others), default=0.0) + load_ms

    def _load_left_ms(self, backends: list[Backend], runner: str) -> float:
        if any(is_remote(runner, one.placement.remote) or one.placement.is_loaded(runner) for one in backends):
            return 0.0
        now = self._clock.now_ms()
        begun = [now - one.placement.residences[one.placement.own(runner)].asked_at for one in backends]
        return max(0.0, self._pool.load_ms(runner) - max(begun))

    def _seats(self, backends: list[Backend], runner: str) -> int:
        return sum(self._pool.seats_for(one, runner) for one in backends)


def _begins_ms(left_ms: list[float], jobs: int, mean_ms: float) -> float:
    """When a job begins behind so many others, each of them in the seat that is free first: ``left_ms`` says when."""
    left_ms = sorted(left_ms)
    while sum(turns := [int((left_ms[-1] - one) // mean_ms) for one in left_ms]) > jobs:
        # All of them begin in other seats, before this one is free.
        left_ms.pop()
    jobs -= sum(turns)
    left_ms = sorted(one + mean_ms * count for one, count in zip(left_ms, turns, strict=True))
    return left_ms[jobs % len(left_ms)] + jobs // len(left_ms) * mean_ms


def _others_loaded(backend: Backend, runner: str) -> Iterator[str]:
    own = backend.placement.own(runner)
    return (one for one in backend.placement.loaded.values() if one != own)


def _has(backend: Backend, runner: str) -> bool:
    """Whether a job of this runner can begin there without a new load."""
    placement = backend.placement
    return is_remote(runner, placement.remote) or placement.is_loaded(runner) or placement.is_loading(runner)
