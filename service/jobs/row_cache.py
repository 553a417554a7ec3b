"""The rows of jobs that were lately changed or asked for, so that a poll need not ask the database each time.

Bounded, and only where all changes of the rows pass through this process. Polls of waiting jobs: three times as many a
second, since the place in a line need not be counted anew (tests/bench, polling).
"""

from __future__ import annotations

from typing import NamedTuple

from service.job import Job
from service.queue.ranks import Stamp
from service.store.job_statements import EXACT_RANK

_MOST_JOBS = 5_000
_COUNTED_MS = 30_000
"""After so long a rank is counted again, although nothing that would change it was heard of."""


class Counted(NamedTuple):
    """How many jobs of its line were ahead of a job, until when that is believed, and how the line stood."""

    rank: int
    until: int
    stamp: Stamp


class RowCache:
    """Rows by id, and the ranks of those that wait."""

    def __init__(self, *, is_enabled: bool) -> None:
        self._is_enabled = is_enabled
        # When so many are new, those that were before them go at once: to tell one by one which has been here longest
        # takes longer than all else about it.
        self._new: dict[str, tuple[Job, Counted | None]] = {}
        self._old: dict[str, tuple[Job, Counted | None]] = {}
        self._gone: dict[str, None] = {}
        """Jobs that were purged lately."""

    def put(self, job: Job, rank: int | None = None, now: int = 0, stamp: Stamp | None = None) -> None:
        """Remember a row as it stands; ``rank`` and ``stamp`` where it waits, its rank is known, and how its line stood
        then.
        """
        if not self._is_enabled or (self._gone and job.id in self._gone):
            return
        counted = Counted(rank, now + _COUNTED_MS, stamp) if rank is not None and stamp is not None else None
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

    def forget(self, job_id: str) -> None:
        """A job is purged. A row of it that was read a moment before is not taken any more."""
        if len(self._gone) >= _MOST_JOBS:
            self._gone.pop(next(iter(self._gone)))
        self._gone[job_id] = None
        self._new.pop(job_id, None)
        self._old.pop(job_id, None)

    def clear(self) -> None:
        """Forget all rows: some are gone from the database."""
        self._new.clear()
        self._old.clear()

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
        passed = counted.stamp.passed
        if passed is None:
            return None
        if counted.rank >= EXACT_RANK:
            # Counting stopped there: how far behind the job really is, nobody knows.
            return EXACT_RANK
        return max(0, counted.rank - passed)

    def _found(self, job_id: str) -> tuple[Job, Counted | None] | None:
        return self._new.get(job_id) or self._old.get(job_id)
