"""The rows of jobs that were lately changed or asked for, so that a poll need not ask the database each time.

Bounded, and only where all changes of the rows pass through this process. Polls of waiting jobs: three times as many a
second, since the place in a line need not be counted anew (tests/bench, polling).
"""

from __future__ import annotations

from service.job import Job, Line
from service.queue.ranks import Counted, Moves, Stamp
from service.store.job_statements import EXACT_RANK

_MOST_JOBS = 5_000
_MOST_LINES = 5_000
_COUNTED_MS = 30_000
"""After so long a rank is counted again, although nothing that would change it was heard of."""


class RowCache:
    """Rows by id, and the ranks of those that wait."""

    def __init__(self, *, is_enabled: bool) -> None:
        self._is_enabled = is_enabled
        # When so many are new, those that were before them go at once: to tell one by one which has been here longest
        # takes longer than all else about it.
        self._new: dict[str, tuple[Job, Counted | None]] = {}
        self._old: dict[str, tuple[Job, Counted | None]] = {}
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

    def put(self, job: Job, rank: int | None = None, now: int = 0, stamp: Stamp | None = None) -> None:
        """Remember a row as it stands; ``rank`` where it waits and that is known, and how its line stood then."""
        if not self._is_enabled:
            return
        counted = None
        if rank is not None:
            counted = Counted(rank, now + _COUNTED_MS, stamp or self.stamp(job.line))
        if len(self._new) >= _MOST_JOBS // 2:
            self._new, self._old = {}, self._new
        self._new[job.id] = (job, counted)

    def learn(self, job: Job) -> None:
        """Take over a row that was read where it is newer: it is on disk a moment before its change is announced, and
        nobody who was shown it is to be shown the older one again.
        """
        known = self.get(job.id)
        if known is not None and job.stage > known.stage:
            self.put(job)

    def clear(self) -> None:
        """Forget all rows: some are gone from the database."""
        self._new.clear()
        self._old.clear()

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

    def get(self, job_id: str) -> Job | None:
        """The row, None when it is not remembered."""
        found = self._found(job_id)
        return found[0] if found is not None else None

    def rank(self, job: Job, now: int) -> int | None:
        """How many jobs of its line are ahead of a remembered job, EXACT_RANK for that and more; None when that must be
        counted.
        """
        found = self._found(job.id)
        counted = found[1] if found is not None else None
        if counted is None or now > counted.until:
            return None
        taken, disturbed, moves = counted.stamp
        if moves.disturbed != disturbed:
            return None
        if counted.rank >= EXACT_RANK:
            # Counting stopped there: how far behind the job really is, nobody knows.
            return EXACT_RANK
        return max(0, counted.rank - (moves.taken - taken))

    def _found(self, job_id: str) -> tuple[Job, Counted | None] | None:
        return self._new.get(job_id) or self._old.get(job_id)

    def _moves_of(self, line: Line) -> Moves:
        moves = self._moves.get(line)
        if moves is None:
            if len(self._moves) >= _MOST_LINES:
                # Whoever holds one of them is to believe nothing of it any more.
                for one in self._moves.values():
                    one.disturbed += 1
                self._moves.clear()
                self.clear()
            moves = self._moves[line] = Moves()
        return moves
