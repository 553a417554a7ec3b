"""Which models one backend can hold at once: learnt from what ``/api/ps`` lists together, never computed.

The knowledge is of sets: that three runners fit in pairs does not say that all three do. The runners of a set that fits
fit in any smaller number too. That a set does not fit is said of models: with other options they may be larger still.
Pure: times are milliseconds of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Set

from service.job import model_of_runner

REMEMBERED_SETS = 64
_UNFIT_MS = 7 * 86_400_000
"""How long it holds that models do not fit: another program may have taken the memory."""
_UNTRIED_MS = 3_600_000
"""How long a set is left alone of which a try has shown nothing."""


class FittingSets:
    """What is known of one backend."""

    __slots__ = ("changes", "old", "sets", "unfit", "untried")

    def __init__(self) -> None:
        self.sets: list[frozenset[str]] = []
        """Runners that were seen loaded at once since the backend was last away. None is part of another; the latest
        stands last.
        """
        self.old: list[frozenset[str]] = []
        """The same from before that, and from the store."""
        self.unfit: dict[frozenset[str], int] = {}
        """Sets of models that do not fit, and until when that holds; the latest stands last."""
        self.untried: dict[frozenset[str], int] = {}
        """Sets of models that were tried without a result, and until when they are not tried again."""
        self.changes = 0
        """Counts up when there is something new to be kept."""

    def fit(self, runners: Collection[str]) -> bool:
        """Whether these are known to fit together. One alone always does."""
        return len(runners) <= 1 or _holds(self.sets, runners)

    def have_fitted(self, runners: Collection[str]) -> bool:
        """Whether they are known to have fitted, perhaps long ago."""
        return self.fit(runners) or _holds(self.old, runners)

    def may_be_tried(self, models: Set[str], now: int) -> bool:
        """Whether nothing speaks against trying these models together."""
        _drop_past(self.unfit, now)
        _drop_past(self.untried, now)
        return frozenset(models) not in self.untried and not any(known <= models for known in self.unfit)

    # What is learnt

    def remember(self, seen: Set[str]) -> None:
        """These runners are loaded at once."""
        if len(seen) <= 1 or self.fit(seen):
            return
        if not _holds(self.old, seen):
            self.changes += 1
        self.sets = _with(self.sets, frozenset(seen))
        self.old = [known for known in self.old if not known <= seen]

    def refuse(self, models: Set[str], now: int) -> None:
        """These models were seen not to fit: one had to make way for another."""
        if len(models) > 1:
            _put(self.unfit, models, now + _UNFIT_MS)
            self.sets = [known for known in self.sets if not models <= _models(known)]
            self.old = [known for known in self.old if not models <= _models(known)]
            self.changes += 1

    def leave_alone(self, models: Set[str], now: int) -> None:
        """A try of these models has shown nothing."""
        _put(self.untried, models, now + _UNTRIED_MS)

    def doubt(self, runner: str, busy: Set[str]) -> None:
        """This runner may not fit with any of those that are at work: forget where they were seen together."""
        before = len(self.sets) + len(self.old)
        self.sets = [known for known in self.sets if runner not in known or not known & busy]
        self.old = [known for known in self.old if runner not in known or not known & busy]
        if len(self.sets) + len(self.old) < before:
            self.changes += 1

    def grow_old(self) -> None:
        """The backend was away: what was seen before may hold no longer."""
        for known in self.sets:
            self.old = _with(self.old, known)
        self.sets = []

    def forget(self, models: Set[str]) -> None:
        """These models are gone, or others have their names: whatever is known of them says nothing any more."""
        before = (self.sets, self.old, self.unfit)
        self.sets = [known for known in self.sets if models.isdisjoint(map(model_of_runner, known))]
        self.old = [known for known in self.old if models.isdisjoint(map(model_of_runner, known))]
        self.unfit = {known: until for known, until in self.unfit.items() if known.isdisjoint(models)}
        self.untried = {known: until for known, until in self.untried.items() if known.isdisjoint(models)}
        if before != (self.sets, self.old, self.unfit):
            self.changes += 1

    def forget_unfit(self) -> None:
        """The server has changed: what did not fit may fit now."""
        if self.unfit:
            self.unfit.clear()
            self.changes += 1
        self.untried.clear()

    def restore(self, fitting: Iterable[frozenset[str]], unfit: Iterable[tuple[frozenset[str], int]]) -> None:
        """What was kept: the sets that fitted, and those that did not, each with its time."""
        for known in fitting:
            if not self.fit(known):
                self.old = _with(self.old, known)
        for models, until in unfit:
            self.unfit.setdefault(models, until)

    def rename(self, own: Callable[[str], str]) -> None:
        """From now on the runners have other names here."""
        self.sets = [frozenset(map(own, known)) for known in self.sets]
        self.old = [frozenset(map(own, known)) for known in self.old]
        renamed = {frozenset(map(own, models)): until for models, until in self.unfit.items()}
        # Of two names for one runner neither keeps the other away.
        self.unfit = {models: until for models, until in renamed.items() if len(models) > 1}


def _models(runners: Iterable[str]) -> set[str]:
    return {model_of_runner(runner) for runner in runners}


def _holds(sets: Iterable[frozenset[str]], runners: Collection[str]) -> bool:
    return any(known.issuperset(runners) for known in sets)


def _with(sets: list[frozenset[str]], seen: frozenset[str]) -> list[frozenset[str]]:
    if _holds(sets, seen):
        return sets
    return [*(known for known in sets if not known <= seen), seen][-REMEMBERED_SETS:]


def _put(times: dict[frozenset[str], int], models: Set[str], until: int) -> None:
    times.pop(frozenset(models), None)
    times[frozenset(models)] = until
    if len(times) > REMEMBERED_SETS:
        del times[next(iter(times))]


def _drop_past(times: dict[frozenset[str], int], now: int) -> None:
    for models in [models for models, until in times.items() if until <= now]:
        del times[models]
