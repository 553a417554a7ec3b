"""How far the jobs of a line have moved since a rank in it was counted, so that it need not be counted anew."""

from __future__ import annotations

from typing import NamedTuple

from service.job import Line

_MOST_LINES = 5_000


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

    @property
    def passed(self) -> int | None:
        """How many of the line's oldest jobs were taken since; None when it has changed in another way."""
        moves = self.moves
        return moves.taken - self.taken if moves.disturbed == self.disturbed else None


class Ranks:
    """The moves of all lines. Disabled where other processes move them as well."""

    def __init__(self, *, is_enabled: bool) -> None:
        self._is_enabled = is_enabled
        self._moves: dict[Line, Moves] = {}
        self._changes = 0
        self._taking = 0

    def stamp(self, line: Line) -> Stamp:
        """How the line stands now, for a rank that is known now."""
        return self._moves_of(line).stamp

    def calm(self) -> int | None:
        """A number that stays the same as long as no line moves; None while jobs are being taken, which the database
        counts or not.
        """
        return None if self._taking else self._changes

    def take(self, line: Line) -> None:
        """The oldest job of the line is about to be claimed; at the end that is told with :meth:`taken`."""
        if self._is_enabled:
            self._taking += 1
            self._changes += 1
            self._moves_of(line).taken += 1

    def taken(self, line: Line, jobs: int, claimed: int) -> None:
        """Of so many jobs that were to be claimed so many were."""
        if self._is_enabled:
            self._taking -= jobs
            self._changes += 1
            if claimed < jobs:
                self._moves_of(line).disturbed += 1

    def disturb(self, line: Line) -> None:
        """A job has left the line from anywhere, or come to another place than its end: all ranks are to be counted."""
        if self._is_enabled:
            self._changes += 1
            self._moves_of(line).disturbed += 1

    def _moves_of(self, line: Line) -> Moves:
        moves = self._moves.get(line)
        if moves is None:
            if len(self._moves) >= _MOST_LINES:
                # A stamp that refers to one of them must not be believed any more.
                for one in self._moves.values():
                    one.disturbed += 1
                self._moves.clear()
            moves = self._moves[line] = Moves()
        return moves
