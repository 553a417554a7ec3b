"""How many jobs there are, kept in memory: set from one grouped count at the start, then moved with every change.

No request counts rows. A gauge may be ahead of the commit that it belongs to, but not for long: when a claim does not
find a job that was counted, the rows are counted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from service.job import Line, Status, model_of_runner


class Gauge(NamedTuple):
    """How many jobs of one line have one status, and, for queued jobs, the bytes of their requests."""

    line: Line
    status: str
    jobs: int
    size: int


_Key = tuple[str, str | None, str | None]
"""Status, model and owner; None stands for all."""


class Gauges:
    """Counts by status, model and owner, and the ready jobs of every line."""

    def __init__(self) -> None:
        self._totals: dict[_Key, int] = {}
        self._ready: dict[str, dict[str, dict[int, int]]] = {}
        self._ready_by_model: dict[str, dict[str, dict[int, int]]] = {}
        self._ready_by_runner: dict[str, int] = {}
        self._balance: dict[Line, int] = {}
        self._bytes_by_owner: dict[str, int] = {}
        self.queued_bytes = 0

    def set(self, gauges: Iterable[Gauge], delayed: Mapping[Line, int]) -> None:
        """Begin anew from a grouped count of all jobs and the delayed ones among the queued."""
        self._totals.clear()
        self._ready.clear()
        self._ready_by_model.clear()
        self._ready_by_runner.clear()
        self._balance.clear()
        self._bytes_by_owner.clear()
        self.queued_bytes = 0
        for gauge in gauges:
            self._add(_totals_of(gauge.line, gauge.status), gauge.jobs)
            if gauge.status == Status.QUEUED:
                self._add_bytes(gauge.line.owner, gauge.size)
                self.add_ready(gauge.line, gauge.jobs - delayed.get(gauge.line, 0))

    def arrive(self, line: Line, status: str, size: int, *, is_ready: bool) -> None:
        """A job that was not there before."""
        self._add(_totals_of(line, status), 1)
        if status == Status.QUEUED:
            self._add_bytes(line.owner, size)
            if is_ready:
                self.add_ready(line, 1)

    def leave(self, line: Line, status: str, size: int, *, was_ready: bool) -> None:
        """A job that is gone: pruned, or never committed."""
        self._add(_totals_of(line, status), -1)
        if status == Status.QUEUED:
            self._add_bytes(line.owner, -size)
            if was_ready:
                self.add_ready(line, -1)

    def move(self, line: Line, before: str, after: str, size: int, *, ready: int = 0) -> None:
        """A job that changed its status; ``ready`` is what its line gains or loses in jobs that may be claimed."""
        self._add(_totals_of(line, before), -1)
        self._add(_totals_of(line, after), 1)
        turns = (after == Status.QUEUED) - (before == Status.QUEUED)
        if turns:
            self._add_bytes(line.owner, turns * size)
        if ready:
            self.add_ready(line, ready)

    def add_ready(self, line: Line, jobs: int) -> None:
        """Change how many jobs of a line may be claimed."""
        before = self._balance.get(line, 0)
        left = before + jobs
        # A cancel and a pick may both have counted one job away; the balance keeps the debt until one of them
        # is taken back.
        if left == 0:
            self._balance.pop(line, None)
        else:
            self._balance[line] = left
        more = max(0, left) - max(0, before)
        if more:
            runner = line.runner
            ready = self._ready_by_runner.get(runner, 0) + more
            if ready:
                self._ready_by_runner[runner] = ready
            else:
                del self._ready_by_runner[runner]
            _add(self._ready, runner, line, more)
            _add(self._ready_by_model, line.model, line, more)

    def total(self, status: str | None = None, model: str | None = None, owner: str | None = None) -> int:
        """How many jobs there are, of one status, model or owner where named."""
        if status is None:
            return sum(self.total(each, model, owner) for each in Status)
        return self._totals.get((status, model, owner), 0)

    @property
    def queued_owners(self) -> int:
        """How many owners have queued jobs."""
        return len(self._bytes_by_owner)

    def queued_bytes_of(self, owner: str) -> int:
        """What the requests of an owner's queued jobs take."""
        return self._bytes_by_owner.get(owner, 0)

    @property
    def ready_by_runner(self) -> Mapping[str, int]:
        """How many jobs of each runner may be claimed. Read it, and never keep it."""
        return self._ready_by_runner

    def ready(self, line: Line) -> int:
        """How many jobs of a line may be claimed."""
        return max(0, self._balance.get(line, 0))

    @property
    def waiting(self) -> Mapping[str, Mapping[str, Mapping[int, int]]]:
        """Ready jobs by runner, owner and priority; no entry is empty. Read it, and never keep it."""
        return self._ready

    @property
    def waiting_by_model(self) -> Mapping[str, Mapping[str, Mapping[int, int]]]:
        """The same by model, owner and priority, over all runners of the model."""
        return self._ready_by_model

    def _add_bytes(self, owner: str, size: int) -> None:
        self.queued_bytes += size
        own = self._bytes_by_owner.get(owner, 0) + size
        if own:
            self._bytes_by_owner[owner] = own
        else:
            self._bytes_by_owner.pop(owner, None)

    def _add(self, keys: Iterable[_Key], jobs: int) -> None:
        totals = self._totals
        for key in keys:
            left = totals.get(key, 0) + jobs
            if left:
                totals[key] = left
            else:
                totals.pop(key, None)


def _add(ready: dict[str, dict[str, dict[int, int]]], name: str, line: Line, more: int) -> None:
    """Count so many more ready jobs of the line under this name; what is empty goes."""
    owners = ready.setdefault(name, {})
    priorities = owners.setdefault(line.owner, {})
    left = priorities.get(line.priority, 0) + more
    if left:
        priorities[line.priority] = left
        return
    del priorities[line.priority]
    if not priorities:
        del owners[line.owner]
        if not owners:
            del ready[name]


@lru_cache(maxsize=4096)
def _totals_of(line: Line, status: str) -> tuple[_Key, ...]:
    """The totals in which a job of this line and status is counted."""
    model = model_of_runner(line.runner)
    return ((status, None, None), (status, model, None), (status, None, line.owner), (status, model, line.owner))
