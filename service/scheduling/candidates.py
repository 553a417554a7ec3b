"""For whose job each model would be served next on one backend: the owner comes first, and then its runner.

Of the runners of one model at most one is loaded. Among the owners that wait for it, and those that wait for another
runner of the model and are overdue, the one that was served least is next; so an owner's options give it no more turns
than any other has. An owner whose turn it is has its loaded runner before another, and else the one that it has waited
for longest. Pure: times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from itertools import islice
from math import inf
from typing import NamedTuple

from service.backend.backend import Backend
from service.backend.placement import UNKNOWN, Placement
from service.backend.pool import Pool
from service.job import Line, Priority, model_of_runner
from service.queue.backlog import Backlog
from service.queue.least_served import Place
from service.queue.waits import MOST_UNLOADED


class Candidate(NamedTuple):
    """The runner of a model that would be served next, and for whom."""

    runner: str
    since: int
    """Since when there is a reason to load it, if it is not loaded here."""
    owners: Collection[str] | None = None
    """Those of whom one is served; None: whoever waits for the runner."""


class Known:
    """What was found out of what is loaded and of who is in the order; right as long as nothing happens.

    Owners can ask for so many runners that it would take long to find it anew for each model and backend.
    """

    def __init__(self, backlog: Backlog, pool: Pool) -> None:
        self._backlog = backlog
        self._pool = pool
        self._anywhere: dict[str, bool] = {}
        self._in_order: dict[str, dict[str, list[str]]] = {}

    def is_anywhere(self, runner: str) -> bool:
        """Whether a backend that can be used has this runner."""
        known = self._anywhere.get(runner)
        if known is None:
            known = self._anywhere[runner] = is_anywhere(self._pool, runner)
        return known

    def in_order(self, owner: str) -> Mapping[str, Collection[str]]:
        """By model, an owner's runners that are loaded nowhere and in the order: the one that it has waited for longest
        first.
        """
        known = self._in_order.get(owner)
        if known is None:
            known = self._in_order[owner] = {}
            unloaded = (runner for runner in self._backlog.waits.of_owner(owner) if not self.is_anywhere(runner))
            for runner in islice(unloaded, MOST_UNLOADED):
                known.setdefault(model_of_runner(runner), []).append(runner)
        return known

    def is_behind(self, runner: str, owner: str) -> bool:
        """Whether an owner waits for so many runners that are not loaded that this one is not in the order yet."""
        before = self.in_order(owner)
        return (
            sum(map(len, before.values())) == MOST_UNLOADED
            and runner not in before.get(model_of_runner(runner), ())
            and not self.is_anywhere(runner)
        )


class Candidates:
    """What each model would be given a seat for."""

    def __init__(self, backlog: Backlog, pool: Pool) -> None:
        self._backlog = backlog
        self._pool = pool

    def look(self) -> Known:
        """To be given to the questions that are asked before anything happens."""
        return Known(self._backlog, self._pool)

    def of(self, backend: Backend, now: int, known: Known, passed_over: Collection[str] = ()) -> dict[str, Candidate]:
        """By runner: of each model at most one, where its jobs may go to this backend. Models may be passed over."""
        found = {}
        for model in self._backlog.waits.models:
            if model not in passed_over and (one := self._of_model(backend, model, now, known)) is not None:
                found[one.runner] = self._with_backlog(one, backend, now)
        return found

    def _of_model(self, backend: Backend, model: str, now: int, known: Known) -> Candidate | None:
        """The same for one model; None: nobody that waits for it may have a turn there."""
        runners = self._backlog.waits.models[model]
        if not self._pool.may_take(backend, next(iter(runners))):
            return None
        among = self._owners(backend, model, runners)
        if among is not None and not among:
            return None
        if len(runners) == 1:
            ((runner, owners),) = runners.items()
            return self._only(backend, runner, owners, among, known)
        return _Choosing(self._backlog, self._pool, backend, model, now, known).candidate(among)

    def next_overdue(self, backend: Backend, now: int, known: Known) -> int | None:
        """When the next owner will have waited so long for a runner of a model that waits for several that it may have
        it loaded in another's place; None: no time is known.
        """
        times = [
            _Choosing(self._backlog, self._pool, backend, model, now, known).next_overdue()
            for model, runners in self._backlog.waits.models.items()
            if len(runners) > 1
        ]
        return min((int(time) for time in times if time is not None), default=None)

    def _only(
        self,
        backend: Backend,
        runner: str,
        owners: Mapping[str, int],
        among: Collection[str] | None,
        known: Known,
    ) -> Candidate | None:
        """The only runner of its model that anybody waits for."""
        since = next(iter(owners.values())) if among is None else min(owners[one] for one in among)
        wide = self._backlog.waits.wide
        if wide and not is_here(backend.placement, runner) and not known.is_anywhere(runner):
            waiting = owners if among is None else among
            behind = {owner for owner in wide if owner in waiting and known.is_behind(runner, owner)}
            if behind:
                among = [owner for owner in waiting if owner not in behind]
                return Candidate(runner, since, among) if among else None
        return Candidate(runner, since, among)

    def _with_backlog(self, one: Candidate, backend: Backend, now: int) -> Candidate:
        """Of a runner that others have it matters how long the last of those who wait for it will have waited."""
        runner = one.runner
        having = [other for other in self._pool if other is not backend and is_here(other.placement, runner)]
        if not having or is_here(backend.placement, runner):
            return one
        seats = sum(self._pool.seats_for(other, runner) for other in having)
        jobs = self._backlog.gauges.ready_by_runner.get(runner, 0)
        return one._replace(since=min(one.since, now - int(jobs * self._backlog.expected_ms(runner) / seats)))

    def _owners(self, backend: Backend, model: str, runners: Mapping[str, Mapping[str, int]]) -> Collection[str] | None:
        """The owners who may have a turn there; None: all who wait."""
        backlog, pool = self._backlog, self._pool
        if pool.is_sound(backend, model):
            return None if any(map(backlog.has_ready, runners)) else ()
        return {
            owner
            for owners in runners.values()
            for owner in owners
            if pool.may_begin(backend, model, owner) and backlog.may_run(owner)
        }


class _Unloaded(NamedTuple):
    """An owner that waits for a runner that is not loaded here."""

    owner: str
    runner: str
    since: int
    """Since when: since its last turn there, and since the model was last loaded for it, whatever its options."""


class _Choosing:
    """The choice among the runners of one model."""

    def __init__(self, backlog: Backlog, pool: Pool, backend: Backend, model: str, now: int, known: Known) -> None:
        self._backlog = backlog
        self._pool = pool
        self._backend = backend
        self._model = model
        self._now = now
        self._known = known
        self._runners = backlog.waits.models[model]
        self._here = _here(backend.placement, model, self._runners)

    def candidate(self, among: Collection[str] | None) -> Candidate | None:
        due = self._now - self._backend.placement.max_swap_wait_ms
        overdue = [one for one in self._unloaded(among, due) if one.since <= due]
        here = self._first_here(among)
        if here is None:
            # Nothing of the model that is loaded is waited for. Who had many seats leads by more than others can make
            # up in that time, who load for one job after another: so there who is overdue goes first.
            has_seats = self._pool.seats_for(self._backend, self._model) > 1
            is_forced = bool(overdue) and (has_seats or self._is_anything_wanted_here())
            first = self._first(overdue if is_forced else list(self._unloaded(among)))
            return self._elsewhere(among) if first is None else Candidate(first.runner, first.since, (first.owner,))
        runner, _ = here
        first = self._first(overdue)
        if first is not None and self._goes_before(first, among):
            return Candidate(first.runner, first.since, (first.owner,))
        return Candidate(runner, next(iter(self._runners[runner].values())), among)

    def next_overdue(self) -> float | None:
        """When the next owner will be overdue; None: no time is known."""
        wait_ms = self._backend.placement.max_swap_wait_ms
        # Of those who are not overdue by the wait alone, the first of each runner is the first of all.
        due = [one.since + wait_ms for one in self._unloaded(None, self._now - wait_ms, more=1)]
        return min((time for time in due if time > self._now), default=None)

    def _unloaded(self, among: Collection[str] | None, until: float = inf, *, more: int = 0) -> Iterator[_Unloaded]:
        """The owners that have waited since then or longer for a runner that is loaded nowhere, each with the one that
        it has waited for longest; and so many more of each runner, who came later.
        """
        loaded = set(self._here)
        for other in self._pool:
            if other is not self._backend and other.is_available:
                loaded |= set(_here(other.placement, self._model, self._runners))
        if len(loaded) == len(self._runners):
            return
        found: dict[str, _Unloaded] = {}
        wide = self._backlog.waits.wide
        for owner, runner, since in self._waits_of(wide, loaded) if wide else self._waits(loaded, until, more):
            is_first = owner not in found or since < found[owner].since
            if is_first and (among is None or owner in among) and self._backlog.may_have_turn(runner, owner):
                found[owner] = _Unloaded(owner, runner, since)
        for one in found.values():
            loaded_at = self._backlog.order.loaded_at(self._model, one.owner)
            yield one if loaded_at <= one.since else one._replace(since=loaded_at)

    def _waits(self, loaded: Set[str], until: float, more: int) -> Iterator[tuple[str, str, int]]:
        """Owner, runner and since when, of those who have waited longest for each runner that is loaded nowhere."""
        for runner, owners in self._runners.items():
            if runner not in loaded:
                later = 0
                for owner, since in owners.items():
                    later += since > until
                    if later > more:
                        break
                    yield owner, runner, since

    def _waits_of(self, wide: Set[str], loaded: Set[str]) -> Iterator[tuple[str, str, int]]:
        """The same of all owners of the model, some of whom wait for more runners than are in the order."""
        for owner in self._backlog.gauges.waiting_by_model[self._model]:
            waits = self._backlog.waits.of_owner(owner)
            own = self._known.in_order(owner).get(self._model, ()) if owner in wide else waits
            for runner in own:
                if runner in self._runners and runner not in loaded:
                    yield owner, runner, waits[runner]

    def _is_anything_wanted_here(self) -> bool:
        """Whether anybody waits for what is loaded here, of whatever model: then only those who are overdue load."""
        models, placement = self._backlog.waits.models, self._backend.placement
        return any(_here(placement, model, runners) for model, runners in models.items())

    def _elsewhere(self, among: Collection[str] | None) -> Candidate | None:
        """All that is waited for is loaded, but not here: perhaps it deserves a copy."""
        best = self._first_of(self._runners, among)
        return None if best is None else Candidate(best[0], next(iter(self._runners[best[0]].values())), among)

    def _first_here(self, among: Collection[str] | None, but_for: str | None = None) -> tuple[str, Place] | None:
        """Of the runners that are loaded here, or need not be, the one whose owner is next; one may be left out."""
        return self._first_of(self._here, among, but_for)

    def _first_of(
        self, runners: Iterable[str], among: Collection[str] | None, but_for: str | None = None
    ) -> tuple[str, Place] | None:
        best: tuple[Place, str] | None = None
        for runner in runners:
            without = [Line(runner, but_for, priority) for priority in Priority] if but_for is not None else ()
            line = self._backlog.peek(runner, among, without)
            if line is not None:
                mine = (self._backlog.place(runner, line.owner), runner)
                best = mine if best is None else min(best, mine)
        return None if best is None else (best[1], best[0])

    def _first(self, unloaded: Collection[_Unloaded]) -> _Unloaded | None:
        return min(unloaded, key=lambda one: self._backlog.place(one.runner, one.owner), default=None)

    def _goes_before(self, overdue: _Unloaded, among: Collection[str] | None) -> bool:
        """Whether an overdue owner's load goes before the jobs of the others for what is loaded.

        Of two owners it is the one that was served less, but what fits into half the time of the load is served before
        it: else owners who stand alike would load in turn.
        """
        others = self._first_here(among, overdue.owner)
        if others is None:
            return True
        here = others[1]
        rank, _, owner = here
        theirs = self._backlog.place(overdue.runner, overdue.owner)
        cost = self._backlog.order.cost(self._model, owner)
        return theirs < here and rank + cost > theirs[0] + self._pool.load_ms(overdue.runner) / 2


def is_here(placement: Placement, runner: str) -> bool:
    """Whether a backend has this runner, is loading it, or needs none for its jobs."""
    return placement.takes_no_room(runner) or placement.is_loaded(runner) or placement.is_loading(runner)


def is_anywhere(pool: Pool, runner: str) -> bool:
    """Whether a backend that can be used has this runner."""
    return any(one.is_available and is_here(one.placement, runner) for one in pool)


def _here(placement: Placement, model: str, runners: Collection[str]) -> Collection[str]:
    """Those of a model's runners that a backend has: found among what it has, since an owner can ask for any number."""
    own = placement.own(model)
    if placement.takes_no_room(model) or placement.loaded.get(own) == UNKNOWN:
        return [runner for runner in runners if is_here(placement, runner)]
    names = {name for name in (placement.loaded.get(own), *placement.at_work) if name and model_of_runner(name) == own}
    asked = (model + name.removeprefix(own) for name in names)
    return [runner for runner in asked if runner in runners and is_here(placement, runner)]
