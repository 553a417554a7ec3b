"""Who is served next on one backend, at one moment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property

from service.backend.placement import Placement
from service.backend.residence import Obstacle, Swap
from service.job import model_of_runner


def choose(
    placement: Placement,
    waiting: Mapping[str, int],
    now: int,
    *,
    elsewhere: Collection[str] = (),
    may_load: bool = True,
    may_evict: bool = True,
) -> str | None:
    """The runner whose job goes next; None when no job may go now.

    ``waiting`` says of each runner, of which each model has one, since when somebody waits for it; ``elsewhere`` are
    runners that another backend has or loads. Without ``may_load`` only what is loaded here is served, without
    ``may_evict`` only what pushes nothing out.
    """
    placement.doubt_slow_loads(now)
    if len(waiting) == 1 and placement.goes_at_once(only := next(iter(waiting))):
        # This is by far the most frequent case.
        placement.swap = None
        return only
    choice = Choice(placement, waiting, now, elsewhere)
    placement.swap = choice.swap
    chosen = choice.next(may_load=may_load, may_evict=may_evict)
    if chosen is None:
        return None
    # The models that share a runner take turns, as runners do that fit together.
    return placement.first([runner for runner in waiting if placement.own(runner) == chosen], waiting)


class Choice:
    """All that is chosen from, under the names that the runners have here."""

    def __init__(self, placement: Placement, waiting: Mapping[str, int], now: int, elsewhere: Collection[str]) -> None:
        self._placement = placement
        self._waiting = placement.by_own(waiting)
        self._now = now
        self._elsewhere = set(map(placement.own, elsewhere))
        self._is_held = placement.holds.hold is not None
        self.swap = None if self._is_held else self._due_swap()
        """The overdue runner for which the others are drained, if there is one."""

    def next(self, *, may_load: bool, may_evict: bool) -> str | None:
        """The runner whose job goes next."""
        placement, waiting = self._placement, self._waiting
        if self._is_held or self.swap is not None:
            going = [runner for runner in waiting if placement.takes_no_room(runner)]
        else:
            going = [
                one for one in waiting if placement.goes_at_once(one, may_load=may_load or one not in self._elsewhere)
            ]
        tried = self._trial
        if tried is not None and self._first([*going, tried]) == tried:
            # Nothing else is given its seat: it is sent in the step that may push something out.
            return tried if may_load and may_evict else None
        if going:
            # Those that fit together share the seats.
            return going[0] if len(going) == 1 else self._first(going)
        target = self._target()
        if target is None or not may_load or placement.in_the_way_of(target):
            return None
        return target if may_evict or placement.has_room_for(target) else None

    def obstacle(self, runner: str) -> Obstacle | None:
        """What keeps a job of this runner, under the name that it has here, from a free seat; None when nothing does.

        It is one of those that wait. Nothing is changed by asking.
        """
        placement = self._placement
        if placement.takes_no_room(runner):
            return None
        if placement.is_loading(runner) or (self._is_held and placement.is_loaded(runner)):
            return Obstacle.LOADING
        if self._is_held:
            return Obstacle.OTHER_MODEL
        if self._trial == runner:
            return None
        if self.swap is None:
            if placement.goes_at_once(runner, may_load=True):
                return None
            if any(
                placement.goes_at_once(one, may_load=True) and not placement.takes_no_room(one) for one in self._waiting
            ):
                return Obstacle.OTHER_MODEL
        if self._target() != runner:
            return Obstacle.OTHER_MODEL
        return Obstacle.DRAINING if placement.in_the_way_of(runner) else None

    def _first(self, runners: Collection[str]) -> str:
        return min(runners, key=self._placement.turns.by_seats(self._placement.at_work, self._waiting))

    def _target(self) -> str | None:
        """The runner that is loaded next, when those that are at work have ended."""
        if self._is_held:
            return None
        return self.swap.runner if self.swap else self._idle_swap()

    def _due_swap(self) -> Swap | None:
        """The overdue runner whose turn it is, once what is loaded has worked long enough."""
        placement = self._placement
        overdue = [
            runner
            for runner, since in self._waiting.items()
            if self._now - since >= placement.max_swap_wait_ms
            and runner not in self._elsewhere
            and not placement.is_loading(runner)
            and not placement.goes_at_once(runner)
        ]
        overdue = [runner for runner in overdue if self._has_worked_enough(runner)] if overdue else []
        return Swap(placement.turns.longest_without(overdue, self._waiting)) if overdue else None

    def _has_worked_enough(self, overdue: str) -> bool:
        """Whether what is loaded may make way for an overdue runner.

        Each model must have worked as long as its load took: else four overdue ones would swap after every job. A
        runner of the same model may end after one job: it is for owners to be served in turn, whatever their options.
        """
        placement = self._placement
        is_exchange = model_of_runner(overdue) in placement.loaded
        return all(
            one.loaded_at is not None and (is_exchange or self._now - one.loaded_at >= one.load_ms)
            for runner, one in placement.residences.items()
            if runner in placement.at_work or placement.is_loaded(runner)
        )

    def _idle_swap(self) -> str | None:
        """The runner to load because nothing waits for those that are loaded or being loaded."""
        placement, waiting = self._placement, self._waiting
        if self._now < placement.linger_until or any(placement.is_loading(runner) for runner in waiting):
            return None
        others = [runner for runner in waiting if runner not in self._elsewhere]
        if not others:
            others = [runner for runner, since in waiting.items() if self._deserves_a_copy(runner, since)]
        return placement.turns.longest_without(others, waiting) if others else None

    def _deserves_a_copy(self, runner: str, since: int) -> bool:
        """Whether to load here what another backend has too: not if that pushes out what was just in use."""
        placement = self._placement
        return (
            placement.has_room_for(runner)
            or self._now - since >= placement.max_swap_wait_ms
            or self._now - placement.used_at >= placement.longest_load_ms
        )

    @cached_property
    def _trial(self) -> str | None:
        """The runner whose load may be sent beside what is at work, with sends held: nothing is known of them together,
        or they have fitted long ago.
        """
        placement, busy = self._placement, self._placement.busy()
        if self._is_held or not busy or not all(map(placement.is_loaded, busy)):
            return None
        if not placement.holds.are_settled(sum(placement.at_work.values())):
            return None
        others = [one for one in self._waiting if one not in self._elsewhere and self._may_be_tried(one)]
        if not others or (self.swap is not None and self.swap.runner not in others):
            return None
        return self.swap.runner if self.swap else placement.turns.longest_without(others, self._waiting)

    def _may_be_tried(self, runner: str) -> bool:
        placement, model = self._placement, model_of_runner(runner)
        if placement.takes_no_room(runner) or model in placement.loaded or placement.has_room_for(runner):
            return False
        models = {model_of_runner(one) for one in placement.busy()} | placement.loaded.keys() | {model}
        if placement.has_fitted(runner):
            return placement.fitting.may_be_tried(models, self._now)
        return placement.holds.may_try(models, self._now)
