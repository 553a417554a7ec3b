"""Which job goes to which backend: decided when a seat is free, not when a job is submitted.

Pure: nothing is stored or sent here. A seat that was chosen is taken from the pool, and a turn from the backlog.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from service.backend.placement import Placement
from service.backend.pool import Backend, Pool
from service.clock import Clock
from service.job import Line
from service.queue.backlog import Backlog, Pick, WaitingRunner

_STEPS = ((False, False), (True, False), (True, True))
"""What is loaded somewhere is served there before anybody loads anything (may_load), and what there is room for is
loaded before anything is pushed out (may_evict).
"""


class Seat(NamedTuple):
    """A seat that was taken, and the turn that it was taken for."""

    backend: Backend
    pick: Pick


class Turn(NamedTuple):
    """Whose job goes next on a backend; without an owner it is the one that the order names for the runner."""

    runner: str
    owner: str | None = None


def next_turn(
    placement: Placement,
    waiting: Mapping[str, WaitingRunner],
    now: int,
    *,
    elsewhere: set[str],
    may_load: bool,
    may_evict: bool,
) -> Turn | None:
    """Who is served next by one backend, of those who wait; None: nobody now.

    Today the runner is chosen first and its owner afterwards. ``elsewhere`` are runners that another backend has.
    """
    since = {runner: one.since for runner, one in waiting.items()}
    runner = placement.choose(since, now, elsewhere=elsewhere, may_load=may_load, may_evict=may_evict)
    return None if runner is None else Turn(runner)


class Scheduler:
    """Gives free seats to those who wait, and to newcomers."""

    def __init__(self, backlog: Backlog, pool: Pool, clock: Clock) -> None:
        self._backlog = backlog
        self._pool = pool
        self._clock = clock
        self._left: Mapping[str, WaitingRunner] = {}
        self.waiting_since: Mapping[str, int] = {}
        """Since when the oldest job of each runner waits, as of the last time that seats were given out."""

    def reserve(self, line: Line) -> Backend | None:
        """Take a seat for a new job of this line, when there is one and nobody is ahead."""
        if self._backlog.has_waiting:
            return None
        alone = {line.runner: WaitingRunner(self._clock.now_ms(), {line.owner: {line.priority: 1}})}
        for backend, turn in self._offers(alone):
            self._pool.take(backend, turn.runner)
            return backend
        return None

    def choose(self, waiting: Mapping[str, WaitingRunner]) -> list[Seat]:
        """Take seats for those who wait, until there are no seats or nobody waits."""
        self.waiting_since = {runner: one.since for runner, one in waiting.items()}
        left = self._left = dict(waiting)
        seats = []
        for backend, turn in self._offers(left):
            pick = self._backlog.pick(turn.runner, turn.owner)
            if pick is None or not self._backlog.has_ready(turn.runner):
                del left[turn.runner]
            if pick is not None:
                self._pool.take(backend, turn.runner)
                seats.append(Seat(backend, pick))
        return seats

    def next_look(self) -> int | None:
        """When those who were left without a seat may get one although nothing has happened: a runner falls overdue, or
        a residence has been long enough. None: never.
        """
        now = self._clock.now_ms()
        since = {runner: one.since for runner, one in self._left.items()}
        looks = (one.placement.next_look(since, now) for one in self._pool if one.is_available)
        return min((look for look in looks if look is not None), default=None)

    def _offers(self, waiting: Mapping[str, WaitingRunner]) -> Iterator[tuple[Backend, Turn]]:
        """Each free seat with the turn that it goes to. After each one the seat is taken, or nobody waits there."""
        for may_load, may_evict in _STEPS:
            for backend in self._pool.with_free_seat():
                while backend.free_seats > 0 and backend.is_available:
                    mine = {runner: one for runner, one in waiting.items() if self._pool.may_take(backend, runner)}
                    turn = next_turn(
                        backend.placement,
                        mine,
                        self._clock.now_ms(),
                        elsewhere=self._pool.loaded_elsewhere(backend, mine),
                        may_load=may_load,
                        may_evict=may_evict,
                    )
                    if turn is None:
                        break
                    yield backend, turn
