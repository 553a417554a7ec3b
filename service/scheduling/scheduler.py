"""Which job goes to which backend: decided when a seat is free, not when a job is submitted.

Pure: nothing is stored or sent here. A seat that was chosen is taken from the pool, and a turn from the backlog.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from service.backend.breakers import NO_TRIAL, Trial
from service.backend.choice import Choice, choose
from service.backend.load_hold import LoadHold
from service.backend.placement import Placement
from service.backend.pool import Backend, Pool
from service.backend.residence import Obstacle
from service.clock import Clock
from service.job import Line, model_of_runner
from service.queue.backlog import Backlog, Pick, WaitingRunner

_STEPS = ((False, False), (True, False), (True, True))
"""What is loaded somewhere is served there before anybody loads anything (may_load), and what there is room for is
loaded before anything is pushed out (may_evict).
"""


_MOST_FORCED = 1000
"""The owners that are remembered for having forced a trial."""


class Reason(StrEnum):
    """Why a job is given no seat, in the order in which they are looked for: the first that holds is said."""

    NO_BACKEND = "no_backend"
    """No backend that may have the model answers."""
    NO_MODEL = "no_model"
    """No backend that answers may be asked for it."""
    DRAINED = "drained"
    """All that have it are taken out of service."""
    BREAKER = "breaker"
    """The backend or the model rests after faults, or is tried with one job."""
    KEY_LIMIT = "key_limit"
    """The owner's key runs as many jobs as it may."""
    MODEL_LIMIT = "model_limit"
    """As many jobs of the model run as may."""
    LOADING = "loading"
    """Its runner is being loaded."""
    DRAINING = "draining"
    """A backend ends what runs there, to load it."""
    OTHER_MODEL = "other_model"
    """Another model is loaded and keeps its place, or comes first."""
    TURN = "turn"
    """All seats are taken, and others go first."""
    NEXT = "next"
    """All seats are taken, and it goes first."""


class Seat(NamedTuple):
    """A seat that was taken, the turn that it was taken for, and of what this is the trial."""

    backend: Backend
    pick: Pick
    trial: Trial = NO_TRIAL


class Turn(NamedTuple):
    """Whose job goes next on a backend: the owner that the order names for the runner, of those who may have it."""

    runner: str
    owners: Collection[str] | None = None
    """None: all who wait."""


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
    runner = choose(placement, since, now, elsewhere=elsewhere, may_load=may_load, may_evict=may_evict)
    return None if runner is None else Turn(runner)


class Scheduler:
    """Gives free seats to those who wait, and to newcomers."""

    def __init__(self, backlog: Backlog, pool: Pool, clock: Clock) -> None:
        self._backlog = backlog
        self._pool = pool
        self._clock = clock
        self._left: Mapping[str, WaitingRunner] = {}
        self._forced: dict[str, LoadHold] = {}
        """The trial of models that each owner forced last; the longest ago first."""
        self.waiting_since: Mapping[str, int] = {}
        """Since when the oldest job of each runner waits, as of the last time that seats were given out."""

    def reserve(self, line: Line) -> tuple[Backend, Trial] | None:
        """Take a seat for a new job of this line, when there is one and nobody is ahead."""
        if self._backlog.has_waiting:
            return None
        alone = {line.runner: WaitingRunner(self._clock.now_ms(), {line.owner: {line.priority: 1}})}
        for backend, turn in self._offers(alone):
            return backend, self._take(backend, turn.runner, line.owner)
        return None

    def choose(self, waiting: Mapping[str, WaitingRunner]) -> list[Seat]:
        """Take seats for those who wait, until there are no seats or nobody waits."""
        self.waiting_since = {runner: one.since for runner, one in waiting.items()}
        left = self._left = dict(waiting)
        seats = []
        for backend, turn in self._offers(left):
            pick = self._backlog.pick(turn.runner, turn.owners)
            if pick is None or not self._backlog.has_ready(turn.runner):
                del left[turn.runner]
            if pick is not None:
                seats.append(Seat(backend, pick, self._take(backend, turn.runner, pick.line.owner)))
        return seats

    def explain(self, line: Line, waiting: Mapping[str, WaitingRunner] | None = None) -> Reason | None:
        """Why the first job of this line is given no seat now, also where nobody waits in it yet: what a newcomer would
        meet. None: it would be given one, unless the backlog doubts that the line has any jobs. ``waiting`` is that of
        :meth:`choose`; without it, as it was last known.
        """
        model, owner = model_of_runner(line.runner), line.owner
        backends = [backend for backend in self._pool if self._pool.may_have(backend, model)]
        is_any_there = any(backend.is_answering for backend in self._pool)
        if not backends and is_any_there:
            return Reason.NO_MODEL
        backends = [backend for backend in backends if backend.is_answering]
        if not backends:
            return Reason.NO_BACKEND
        backends = [backend for backend in backends if not backend.is_drained]
        if not backends:
            return Reason.DRAINED
        backends = [one for one in backends if one.is_available and self._pool.may_begin(one, model, owner)]
        if not backends:
            return Reason.BREAKER
        if not self._backlog.may_run(owner):
            return Reason.KEY_LIMIT
        backends = [backend for backend in backends if self._pool.may_take(backend, line.runner)]
        if not backends:
            return Reason.MODEL_LIMIT
        return self._explain_place(line, backends, self._since(line.runner, waiting))

    def _explain_place(self, line: Line, backends: list[Backend], since: Mapping[str, int]) -> Reason | None:
        """The same for a line whose jobs these backends may take: what is loaded there, and who goes first."""
        now = self._clock.now_ms()
        obstacles: set[Obstacle] = set()
        is_open = goes_first = False
        for backend in backends:
            others = self._mine(backend, self._backlog.waiting(since))
            mine = {one: time for one, time in since.items() if one == line.runner or one in others}
            elsewhere, placement = self._pool.loaded_elsewhere(backend, mine), backend.placement
            choice = Choice(placement, mine, now, elsewhere)
            obstacle = choice.obstacle(placement.own(line.runner))
            is_trial = obstacle is None and placement.would_try(line.runner)
            if is_trial and not self._may_force(line.owner, placement, now):
                obstacle = Obstacle.OTHER_MODEL
            if obstacle is not None:
                obstacles.add(obstacle)
                continue
            if backend.free_seats > 0:
                return None
            is_open = True
            going = [one for one in mine if choice.obstacle(placement.own(one)) is None]
            goes_first = goes_first or placement.first(going, mine) == line.runner
        for obstacle in (Obstacle.LOADING, Obstacle.DRAINING):
            if obstacle in obstacles:
                return Reason(obstacle)
        if not is_open:
            return Reason.OTHER_MODEL
        return Reason.NEXT if goes_first and not self._backlog.ahead(line, 0) else Reason.TURN

    def _since(self, runner: str, waiting: Mapping[str, WaitingRunner] | None) -> dict[str, int]:
        """Since when the runners wait for which anybody may have a turn, and this one."""
        now = self._clock.now_ms()
        if waiting is None:
            since = {one: self.waiting_since.get(one, now) for one in self._backlog.runners()}
        else:
            since = {one: known.since for one, known in waiting.items()}
        since.setdefault(runner, now)
        return since

    def next_look(self) -> int | None:
        """When those who were left without a seat may get one although nothing has happened: a runner falls overdue, or
        a residence has been long enough. None: never.
        """
        now = self._clock.now_ms()
        since = {runner: one.since for runner, one in self._left.items()}
        looks = (one.placement.next_look(since, now) for one in self._pool if one.is_available)
        return min((look for look in looks if look is not None), default=None)

    def _mine(self, backend: Backend, waiting: Mapping[str, WaitingRunner]) -> dict[str, WaitingRunner]:
        """Those who wait for a seat of this backend and may have one."""
        mine = {}
        for runner, one in waiting.items():
            if not self._pool.may_take(backend, runner):
                continue
            if self._pool.is_sound(backend, model_of_runner(runner)):
                mine[runner] = one
            elif among := self._owners(backend, runner, one):
                mine[runner] = one._replace(owners={owner: one.owners[owner] for owner in among})
        return mine

    def _owners(self, backend: Backend, runner: str, one: WaitingRunner) -> set[str]:
        """Of those who wait for a runner, the owners who may have a turn there in spite of its faults."""
        model = model_of_runner(runner)
        return {
            owner
            for owner in one.owners
            if self._pool.may_begin(backend, model, owner) and self._backlog.may_run(owner)
        }

    def _offers(self, waiting: Mapping[str, WaitingRunner]) -> Iterator[tuple[Backend, Turn]]:
        """Each free seat with the turn that it goes to. After each one the seat is taken, or nobody waits there."""
        for may_load, may_evict in _STEPS:
            for backend in self._pool.with_free_seat():
                while backend.free_seats > 0 and backend.is_available:
                    mine = self._mine(backend, waiting)
                    turn = self._turn(backend, mine, may_load=may_load, may_evict=may_evict)
                    if turn is None:
                        break
                    owners = mine[turn.runner].owners
                    yield backend, turn if owners is waiting[turn.runner].owners else turn._replace(owners=owners)

    def _turn(
        self, backend: Backend, mine: dict[str, WaitingRunner], *, may_load: bool, may_evict: bool
    ) -> Turn | None:
        """Who goes next there. From ``mine`` those are taken who have forced a trial of models just now."""
        placement, now = backend.placement, self._clock.now_ms()
        while True:
            elsewhere = self._pool.loaded_elsewhere(backend, mine)
            turn = next_turn(placement, mine, now, elsewhere=elsewhere, may_load=may_load, may_evict=may_evict)
            if turn is None or not placement.would_try(turn.runner):
                return turn
            one = mine.pop(turn.runner)
            owners = {owner: lines for owner, lines in one.owners.items() if self._may_force(owner, placement, now)}
            if owners:
                mine[turn.runner] = one if len(owners) == len(one.owners) else one._replace(owners=owners)
                return turn

    def _may_force(self, owner: str, placement: Placement, now: int) -> bool:
        """Whether this owner may force a trial: its last one is long ago, or cost nobody anything."""
        last = self._forced.get(owner)
        return last is None or last.has_room or now - last.begun_at >= placement.max_swap_wait_ms

    def _take(self, backend: Backend, runner: str, owner: str) -> Trial:
        """Take the seat, and remember whoever forces a trial of models by it."""
        holds = backend.placement.holds
        before, trial = holds.hold, self._pool.take(backend, runner, owner)
        if holds.hold is not None and holds.hold is not before and holds.hold.is_trial:
            self._forced.pop(owner, None)
            self._forced[owner] = holds.hold
            if len(self._forced) > _MOST_FORCED:
                del self._forced[next(iter(self._forced))]
        return trial
