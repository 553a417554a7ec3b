"""How far the jobs of a line have moved since a rank in it was counted."""

from __future__ import annotations

from typing import NamedTuple


class Moves:
    """What has happened to a line: how many of its oldest jobs were taken, and how often it has changed otherwise."""

    __slots__ = ("_stamp", "disturbed", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.disturbed = 0
        self._stamp = Stamp(0, 0, self)

    @property
    def stamp(self) -> Stamp:
        """How the line stands now; the same as long as nothing happens to it."""
        stamp = self._stamp
        if stamp.taken != self.taken or stamp.disturbed != self.disturbed:
            stamp = self._stamp = Stamp(self.taken, self.disturbed, self)
        return stamp


class Stamp(NamedTuple):
    """How a line stood at a moment."""

    taken: int
    disturbed: int
    moves: Moves


class Counted(NamedTuple):
    """How many jobs of a line were ahead of one job, until when that is believed, and how the line stood then."""

    rank: int
    until: int
    stamp: Stamp
