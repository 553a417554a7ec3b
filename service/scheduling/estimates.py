"""When a waiting job will begin: a guess, made afresh whenever somebody asks.

It follows from the jobs that go before, from what jobs of their runners have taken, from the seats that can serve the
job, and from the load that is still to come where its model is not loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from service.backend.placement import is_remote
from service.backend.pool import Backend, Pool
from service.clock import Clock
from service.job import model_of_runner
from service.queue.backlog import Backlog
from service.scheduling.scheduler import Scheduler

_MOST_RUNNERS = 100
"""How many runners a guess looks at, when jobs for more of them wait."""


class Estimates:
    """When waiting jobs will begin."""

    def __init__(self, backlog: Backlog, pool: Pool, scheduler: Scheduler, clock: Clock) -> None:
        self._backlog = backlog
        self._pool = pool
        self._scheduler = scheduler
        self._clock = clock

    def start_seconds(self, runner: str, ahead: int) -> float | None:
        """In how many seconds a job will begin when ``ahead`` jobs of its runner go before it.

        None while no backend serves its model.
        """
        backends = self._pool.serving(runner)
        if not backends:
            return None
        resident = [one for one in backends if _has(one, runner)]
        if resident:
            wait_ms = self._load_left_ms(resident, runner) + self._turn_ms(resident, runner, ahead)
        else:
            wait_ms = min(self._swap_ms(one, runner) + self._own_ms([one], runner, ahead) for one in backends)
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
        free = sum(self._pool.free_seats_for(one, runner) for one in backends)
        if jobs < free:
            return 0.0
        mean_ms = (work_ms + expected_ms) / (jobs + 1)
        return (jobs + 1 - free) * mean_ms / self._seats(backends, runner)

    def _own_ms(self, backends: list[Backend], runner: str, ahead: int) -> float:
        """For a runner that finds all seats empty when its model is loaded."""
        return (ahead // self._seats(backends, runner)) * self._backlog.expected_ms(runner)

    def _swap_ms(self, backend: Backend, runner: str) -> float:
        """Until the model is loaded. The loaded models work on until nothing waits for them or this one is overdue, and
        then finish their running jobs. Models that have waited longer are loaded first, and then this one.
        """
        placement, now, since = backend.placement, self._clock.now_ms(), self._scheduler.waiting_since
        mine = since.get(runner, now)
        work_ms, before_ms = 0.0, 0.0
        for other, waiting in islice(self._backlog.gauges.ready_by_runner.items(), _MOST_RUNNERS):
            if other == runner or not backend.has_model(model_of_runner(other)):
                continue
            own_ms = waiting * self._backlog.expected_ms(other) / self._seats([backend], other)
            if placement.is_loaded(other):
                work_ms += own_ms
            elif since.get(other, now) < mine:
                load_ms = self._pool.load_ms(other)
                before_ms += load_ms + min(own_ms, load_ms)
        overdue_ms = max(0.0, mine + placement.max_swap_wait_ms - now)
        drain_ms = max((self._backlog.expected_ms(other) for other in placement.in_flight), default=0.0)
        return min(work_ms, overdue_ms) + drain_ms + before_ms + self._pool.load_ms(runner)

    def _load_left_ms(self, backends: list[Backend], runner: str) -> float:
        if is_remote(runner) or any(one.placement.is_loaded(runner) for one in backends):
            return 0.0
        now = self._clock.now_ms()
        begun = [now - one.placement.residences[one.placement.own(runner)].asked_at for one in backends]
        return max(0.0, self._pool.load_ms(runner) - max(begun))

    def _seats(self, backends: list[Backend], runner: str) -> int:
        return sum(self._pool.seats_for(one, runner) for one in backends)


def _others_loaded(backend: Backend, runner: str) -> Iterator[str]:
    own = backend.placement.own(runner)
    return (one for one in backend.placement.loaded.values() if one != own)


def _has(backend: Backend, runner: str) -> bool:
    """Whether a job of this runner can begin there without a new load."""
    return is_remote(runner) or backend.placement.is_loaded(runner) or backend.placement.is_loading(runner)
