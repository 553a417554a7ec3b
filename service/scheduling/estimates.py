"""When a waiting job will begin: a guess, made afresh whenever somebody asks.

It follows from the jobs that go before, from what jobs of their runners have taken, from the seats that can serve the
job, and from the load that is still to come where its model is not loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Protocol

from service.backend.placement import is_remote
from service.backend.pool import Backend, Pool
from service.clock import Clock
from service.job import model_of_runner

_MOST_RUNNERS = 100
"""How many runners a guess looks at, when jobs for more of them wait."""


class Queue(Protocol):
    """What is asked of the core."""

    def expected_ms(self, runner: str) -> float:
        """How long a backend is thought to need for a job of this runner."""

    def ready_counts(self) -> Mapping[str, int]:
        """How many ready jobs of each runner wait."""


class Estimates:
    """``waiting_since`` gives since when the oldest job of each runner waits, as far as that is known."""

    def __init__(self, queue: Queue, pool: Pool, clock: Clock, waiting_since: Callable[[], Mapping[str, int]]) -> None:
        self._queue = queue
        self._pool = pool
        self._clock = clock
        self._waiting_since = waiting_since

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
        """Until a seat is free after all jobs that go before. Jobs of other loaded models take turns with these."""
        expected_ms = self._queue.expected_ms(runner)
        jobs, work_ms = ahead, ahead * expected_ms
        counts = self._queue.ready_counts()
        if len(counts) > (runner in counts):
            for other in {loaded for one in backends for loaded in _others_loaded(one, runner)}:
                between = min(counts.get(other, 0), ahead + 1)
                jobs += between
                work_ms += between * self._queue.expected_ms(other)
        free = sum(self._pool.free_seats_for(one, runner) for one in backends)
        if jobs < free:
            return 0.0
        mean_ms = (work_ms + expected_ms) / (jobs + 1)
        return (jobs + 1 - free) * mean_ms / self._seats(backends, runner)

    def _own_ms(self, backends: list[Backend], runner: str, ahead: int) -> float:
        """Until the turn of a job for a runner that finds all seats empty when its model is loaded."""
        return (ahead // self._seats(backends, runner)) * self._queue.expected_ms(runner)

    def _swap_ms(self, backend: Backend, runner: str) -> float:
        """Until the model is loaded. The loaded models work on until nothing waits for them or this one is overdue, and
        then finish their running jobs. Models that have waited longer are loaded first, and then this one.
        """
        placement, now, since = backend.placement, self._clock.now_ms(), self._waiting_since()
        mine = since.get(runner, now)
        work_ms, before_ms = 0.0, 0.0
        for other, waiting in islice(self._queue.ready_counts().items(), _MOST_RUNNERS):
            if other == runner or not backend.has_model(model_of_runner(other)):
                continue
            own_ms = waiting * self._queue.expected_ms(other) / self._seats([backend], other)
            if placement.is_loaded(other):
                work_ms += own_ms
            elif since.get(other, now) < mine:
                load_ms = self._pool.load_ms(other)
                before_ms += load_ms + min(own_ms, load_ms)
        overdue_ms = max(0.0, mine + placement.max_swap_wait_ms - now)
        drain_ms = max((self._queue.expected_ms(other) for other in placement.in_flight), default=0.0)
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
