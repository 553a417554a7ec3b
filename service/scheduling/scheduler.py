"""Which job goes to which backend: decided when a seat is free, not when a job is submitted.

Pure: nothing is stored or sent here. A seat that was chosen is taken from the pool, and a turn from the backlog.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from service.queue.backlog import Backlog, Pick
from service.scheduling.candidates import Candidate, Candidates, is_here

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
    OWN_RUNNERS = "own_runners"
    """Its owner waits for more runners that are not loaded than may be in the order at once."""
    OTHER_OPTIONS = "other_options"
    """Its model is loaded with other options, or will be: for another owner, or for another job of its own."""
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


class Reserved(NamedTuple):
    """A seat that was taken for a new job."""

    backend: Backend
    trial: Trial
    pays_load: bool
    """Its model is loaded for it, and nobody else waits for that."""


class Turn(NamedTuple):
    """Whose job goes next on a backend: of these owners, the one that the order names."""

    runner: str
    owners: Collection[str] | None = None
    """None: all who wait."""


def next_turn(
    placement: Placement,
    candidates: Mapping[str, Candidate],
    now: int,
    *,
    elsewhere: set[str],
    may_load: bool,
    may_evict: bool,
) -> Turn | None:
    """Who is served next by one backend; None: nobody now. ``candidates`` are by runner, of each model at most one;
    among models it is the placement that chooses. ``elsewhere`` are runners that another backend has.
    """
    since = {runner: one.since for runner, one in candidates.items()}
    runner = choose(placement, since, now, elsewhere=elsewhere, may_load=may_load, may_evict=may_evict)
    return None if runner is None else Turn(runner, candidates[runner].owners)


class Scheduler:
    """Gives free seats to those who wait, and to newcomers."""

    def __init__(self, backlog: Backlog, pool: Pool, clock: Clock) -> None:
        self._backlog = backlog
        self._pool = pool
        self._clock = clock
        self._candidates = Candidates(backlog, pool)
        self._forced: dict[str, LoadHold] = {}
        """The trial of models that each owner forced last; the longest ago first."""

    def reserve(self, line: Line) -> Reserved | None:
        """Take a seat for a new job of this line, when there is one and nobody is ahead."""
        if self._backlog.has_waiting:
            return None
        for may_load, may_evict in _STEPS:
            for backend in self._pool.with_free_seat():
                if not self._may_begin(backend, line):
                    continue
                alone = {line.runner: Candidate(line.runner, self._clock.now_ms(), (line.owner,))}
                if self._turn(backend, alone, may_load=may_load, may_evict=may_evict) is not None:
                    return Reserved(backend, *self._take(backend, line.runner, line.owner))
        return None

    def choose(self) -> list[Seat]:
        """Take seats for those who wait, until there are no seats or nobody waits."""
        seats: list[Seat] = []
        stuck: set[str] = set()
        found: dict[Backend, dict[str, Candidate]] = {}
        known = self._candidates.look()
        for may_load, may_evict in _STEPS:
            for backend in self._pool.with_free_seat():
                while backend.free_seats > 0 and backend.is_available:
                    if backend not in found:
                        found[backend] = self._candidates.of(backend, self._clock.now_ms(), known, stuck)
                    turn = self._turn(backend, dict(found[backend]), may_load=may_load, may_evict=may_evict)
                    if turn is None:
                        break
                    found.clear()
                    known = self._candidates.look()
                    pick = self._backlog.pick(turn.runner, turn.owners)
                    if pick is None:
                        stuck.add(model_of_runner(turn.runner))
                        continue
                    trial, pays_load = self._take(backend, turn.runner, pick.line.owner)
                    seats.append(Seat(backend, pick._replace(pays_load=pays_load), trial))
        return seats

    def explain(self, line: Line) -> Reason | None:
        """Why the first job of this line is given no seat now, also where nobody waits in it yet: what a newcomer would
        meet. None: it would be given one, unless the backlog doubts that the line has any jobs.
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
        return self._explain_place(line, backends)

    def _explain_place(self, line: Line, backends: list[Backend]) -> Reason | None:
        """The same for a line whose jobs these backends may take: what is loaded there, and who goes first."""
        now = self._clock.now_ms()
        obstacles: set[Obstacle] = set()
        is_open = goes_first = is_other = False
        known = self._candidates.look()
        if known.is_behind(line.runner, line.owner):
            return Reason.OWN_RUNNERS
        for backend in backends:
            mine = self._candidates.of(backend, now, known)
            first = next((one for one in mine.values() if model_of_runner(one.runner) == line.model), None)
            if first is None or self._comes_before(line, first, backend, now):
                if first is not None:
                    del mine[first.runner]
                mine[line.runner] = Candidate(line.runner, self._backlog.waits.since(line.runner, line.model, now))
            elif first.runner != line.runner or not (first.owners is None or line.owner in first.owners):
                is_other = True
                continue
            elsewhere, placement = self._pool.loaded_elsewhere(backend, mine), backend.placement
            since = {runner: one.since for runner, one in mine.items()}
            choice = Choice(placement, since, now, elsewhere)
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
            goes_first = goes_first or placement.first(going, since) == line.runner
        for obstacle in (Obstacle.LOADING, Obstacle.DRAINING):
            if obstacle in obstacles:
                return Reason(obstacle)
        if not is_open:
            return Reason.OTHER_OPTIONS if is_other else Reason.OTHER_MODEL
        before = self._backlog.order.ahead(line, 0, self._backlog.waiting_for(line.runner))
        return Reason.NEXT if goes_first and not before else Reason.TURN

    def _comes_before(self, line: Line, first: Candidate, backend: Backend, now: int) -> bool:
        """Whether a newcomer of this line, whose runner is there, would go before who is next of its model."""
        placement = backend.placement
        is_new = not self._backlog.gauges.ready(line)
        is_overdue = now - first.since >= placement.max_swap_wait_ms
        return is_new and not is_overdue and is_here(placement, line.runner) and not is_here(placement, first.runner)

    def next_look(self) -> int | None:
        """When those who were left without a seat may get one although nothing has happened: a runner falls overdue, or
        a residence has been long enough. None: never.
        """
        now = self._clock.now_ms()
        known = self._candidates.look()
        looks: list[int | None] = []
        for backend in self._pool:
            if backend.is_available:
                since = {runner: one.since for runner, one in self._candidates.of(backend, now, known).items()}
                looks += [backend.placement.next_look(since, now), self._candidates.next_overdue(backend, now, known)]
        return min((look for look in looks if look is not None), default=None)

    def _may_begin(self, backend: Backend, line: Line) -> bool:
        """Whether a new job of this line may be sent there, as far as seats of its model and faults go."""
        return (
            backend.free_seats > 0
            and self._pool.may_take(backend, line.runner)
            and self._pool.may_begin(backend, line.model, line.owner)
        )

    def _turn(self, backend: Backend, mine: dict[str, Candidate], *, may_load: bool, may_evict: bool) -> Turn | None:
        """Who goes next there. From ``mine`` those are taken who have forced a trial of models just now."""
        placement, now = backend.placement, self._clock.now_ms()
        while True:
            elsewhere = self._pool.loaded_elsewhere(backend, mine)
            turn = next_turn(placement, mine, now, elsewhere=elsewhere, may_load=may_load, may_evict=may_evict)
            if turn is None or not placement.would_try(turn.runner):
                return turn
            waiting = self._backlog.waiting_for(turn.runner) if turn.owners is None else turn.owners
            owners = [owner for owner in waiting if self._may_force(owner, placement, now)]
            if owners:
                return turn if len(owners) == len(waiting) else Turn(turn.runner, owners)
            del mine[turn.runner]

    def _may_force(self, owner: str, placement: Placement, now: int) -> bool:
        """Whether this owner may force a trial: its last one is long ago, or cost nobody anything."""
        last = self._forced.get(owner)
        return last is None or last.has_room or now - last.begun_at >= placement.max_swap_wait_ms

    def _take(self, backend: Backend, runner: str, owner: str) -> tuple[Trial, bool]:
        """Take the seat; returns of what it is the trial, and whether the owner pays for a load. Whoever forces a trial
        of models by it is remembered.
        """
        placement = backend.placement
        before, loads = placement.holds.hold, placement.swaps
        trial, hold = self._pool.take(backend, runner, owner), placement.holds.hold
        if hold is not None and hold is not before and hold.is_trial:
            self._forced.pop(owner, None)
            self._forced[owner] = hold
            if len(self._forced) > _MOST_FORCED:
                del self._forced[next(iter(self._forced))]
        if placement.swaps == loads:
            return trial, False
        self._backlog.order.loads(runner, owner, self._clock.now_ms())
        return trial, not self._backlog.waiting_for(runner).keys() - {owner}
