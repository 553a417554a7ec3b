"""Which runners one backend can hold at once: learnt from what ``/api/ps`` lists together, never computed.

The knowledge is of sets: that three runners fit in pairs does not say that all three do. The runners of a set that fits
fit in any smaller number too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set

_REMEMBERED_SETS = 64


class FittingSets:
    """Sets of runners that were seen loaded at once."""

    __slots__ = ("sets",)

    def __init__(self) -> None:
        self.sets: list[frozenset[str]] = []
        """None is part of another; the latest stands last."""

    def fit(self, runners: Collection[str]) -> bool:
        """Whether these are known to fit together. One alone always does."""
        return len(runners) <= 1 or any(known.issuperset(runners) for known in self.sets)

    def remember(self, seen: Set[str]) -> None:
        """These runners are loaded at once."""
        if len(seen) > 1 and not self.fit(seen):
            others = [known for known in self.sets if not known <= seen]
            self.sets = [*others, frozenset(seen)][-_REMEMBERED_SETS:]

    def doubt(self, runner: str, busy: Set[str]) -> None:
        """This runner may not fit with any of those that are at work: forget where they were seen together."""
        self.sets = [known for known in self.sets if runner not in known or not known & busy]

    def rename(self, own: Callable[[str], str]) -> None:
        """From now on the runners have other names here."""
        self.sets = [frozenset(map(own, known)) for known in self.sets]
