"""What every owner has been served on one model, and where newcomers begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.queue.crowd import Crowd
from service.queue.least_served import LeastServed, Lines, Place, Waiting
from service.queue.order_rows import ModelRow, ShareRow

FIRST_GUESS_MS = 1.0
"""What a job is charged before any has ended.

It is too little on purpose. What is missing is charged at the end, but what is too much would stay: newcomers would
begin at a value that never goes back, behind everybody who waited already.
"""
_MOST_SAMPLES = 8
_MOST_HEAPS = 8
_NO_RUNNER = ""
_ALL = ""
"""The name under which the owners of all runners are ranked."""


@dataclass(slots=True)
class Counter:
    """What an owner or a line has been served, and when it last had a turn or began to wait."""

    served: float
    turn: int
    charged: float = 0.0
    """What of ``served`` is only expected: it was charged for jobs that still run."""

    def charge(self, cost: float, turn: int) -> None:
        self.served += cost
        self.charged += cost
        self.turn = turn

    def settle(self, charged: float, cost: float) -> None:
        self.served += cost - charged
        self.charged -= charged

    @property
    def settled(self) -> float:
        return self.served - self.charged


@dataclass(slots=True)
class Share:
    """One owner on one model: its own counter and one for each priority that it uses."""

    own: Counter
    lines: dict[int, Counter] = field(default_factory=dict)
    reached: float = 0.0
    running: int = 0
    loaded_at: int = 0
    """When the model was last loaded for a job of this owner."""

    def row(self, model: str, owner: str) -> ShareRow:
        counters = [self.lines.get(priority) for priority in (1, 0, -1)]
        cells = [cell for one in counters for cell in ((one.settled, one.turn) if one else (None, None))]
        return ShareRow(model, owner, self.own.settled, self.own.turn, self.reached, *cells)  # type: ignore[arg-type]

    @classmethod
    def of_row(cls, row: ShareRow) -> Share:
        share = cls(Counter(row.served, row.turn), reached=row.reached)
        cells = ((1, row.high, row.high_turn), (0, row.normal, row.normal_turn), (-1, row.low, row.low_turn))
        for priority, served, turn in cells:
            if served is not None and turn is not None:
                share.lines[priority] = Counter(served, turn)
        return share


class ModelShares:
    """One model: what its jobs cost, how far service has got, and the owners' shares.

    Its jobs may be for several runners of it, of which one is loaded at a time: so owners may fall behind others.
    """

    def __init__(self, boosts_ms: Mapping[int, float]) -> None:
        self._boosts_ms = boosts_ms
        self._highest_boost = max(boosts_ms.values())
        self._heaps: dict[str, LeastServed] = {}
        """By runner, and of all; each is made when somebody asks for it. The latest made stands last."""
        self._only_runner: str | None = _NO_RUNNER
        """The one runner for which anybody has waited since last nobody did; None: there were several."""
        self.shares: dict[str, Share] = {}
        self.reached = 0.0
        self.mean_ms: float | None = None
        self.crowd: Crowd | None = None
        """For positions among very many owners."""
        self._samples = 0

    def set_boosts(self, boosts_ms: Mapping[int, float]) -> None:
        """Rank all waiting owners again with other leads."""
        self._boosts_ms = boosts_ms
        self._highest_boost = max(boosts_ms.values())
        self.crowd = None
        self._heaps.clear()

    def share(self, owner: str, turn: int, begin: float | None = None) -> Share:
        """The owner's share; a new one starts at ``begin``, or where service has got to."""
        share = self.shares.get(owner)
        if share is None:
            share = self.shares[owner] = Share(Counter(self.reached if begin is None else begin, turn))
        return share

    def cost(self, weight: float) -> float:
        """What a job is charged; a binary fraction, so that sums stay exact and equals remain equal."""
        return exact((FIRST_GUESS_MS if self.mean_ms is None else self.mean_ms) / weight)

    def learn(self, used_ms: float, *, is_typical: bool) -> None:
        """Learn from a job that has ended: the plain mean of the first few, then one that forgets. A job that was ended
        early says nothing about what a job costs, unless it ran longer than expected.
        """
        if is_typical or used_ms > (FIRST_GUESS_MS if self.mean_ms is None else self.mean_ms):
            self._samples = min(_MOST_SAMPLES, self._samples + 1)
            mean_ms = self.mean_ms or 0.0
            self.mean_ms = mean_ms + (used_ms - mean_ms) / self._samples

    # Who is next

    def place(self, owner: str, lines: Lines) -> Place:
        """Where an owner stands among others whose jobs may go now: the smallest is next."""
        own = self.share(owner, 0).own
        return own.served - self._boosts_ms[max(lines)], own.turn, owner

    def begins_at(self, waiting: Waiting, cost: float, priority: int) -> float:
        """Where an owner begins that did not wait: where service has got to. ``waiting`` are those who do.

        While jobs wait for several runners, some owners have got far only because the others' runners were not loaded.
        Then it is one job behind whoever is next: else a newcomer would wait until all have caught up.
        """
        if self._only_runner is not None or not waiting:
            return self.reached
        least = self.least_served(None, waiting, {})
        if least is None:
            return self.reached
        level = max(self.place(least, waiting[least])[0], self.share(least, 0).own.served)
        return min(self.reached, level + cost + max(0.0, self._boosts_ms[priority]))

    def enter(self, runner: str, owner: str, *, is_first: bool) -> None:
        """The owner waits for this runner of the model; ``is_first`` when nobody did."""
        if is_first or self._only_runner == _NO_RUNNER:
            self._only_runner = runner
        elif runner != self._only_runner:
            self._only_runner = None
        for name in (runner, _ALL):
            heap = self._heaps.get(name)
            if heap is not None:
                heap.enter(owner)

    def fell(self, owner: str) -> None:
        """The rank of the owner may have fallen."""
        for heap in self._heaps.values():
            if owner in heap:
                heap.enter(owner)

    def least_served(self, runner: str | None, waiting: Waiting, limited: Waiting) -> str | None:
        """Of those who wait for a runner (None: for any) the owner whose turn it is; see :meth:`LeastServed.first`."""
        name = _ALL if runner is None else runner
        heap = self._heaps.get(name)
        if heap is None:
            if len(self._heaps) >= _MOST_HEAPS:
                del self._heaps[next(iter(self._heaps))]
            heap = self._heaps[name] = LeastServed(self._lowest, self.place)
        return heap.first(waiting, limited)

    def _lowest(self, owner: str) -> Place:
        own = self.share(owner, 0).own
        return own.served - self._highest_boost, own.turn, owner

    # What is kept

    def row(self, model: str) -> ModelRow:
        return ModelRow(model, self.reached, self.mean_ms, self._samples)

    def restore(self, row: ModelRow) -> None:
        self.reached, self.mean_ms, self._samples = row.reached, row.mean_ms, row.samples


def exact(milliseconds: float) -> float:
    """Rounded to a 1024th."""
    return max(1.0, round(milliseconds * 1024)) / 1024
