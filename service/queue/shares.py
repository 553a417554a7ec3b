"""What every owner has been served on one runner, and which of the waiting owners was served least."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from service.queue.crowd import Crowd
from service.queue.order_rows import RunnerRow, ShareRow

Lines = Mapping[int, int]
"""Ready jobs of one owner by priority."""
Waiting = Mapping[str, Lines]
"""Ready jobs of one runner by owner and priority; no entry is empty."""
HeapEntry = tuple[float, int, str]
"""The lowest rank that an owner can have, when it last had a turn, and the owner."""

FIRST_GUESS_MS = 1.0
"""What a job is charged before any has ended.

It is too little on purpose. What is missing is charged at the end, but what is too much would stay: newcomers would
begin at a value that never goes back, behind everybody who waited already.
"""
_MOST_SAMPLES = 8


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
    """One owner on one runner: its own counter and one for each priority that it uses."""

    own: Counter
    lines: dict[int, Counter] = field(default_factory=dict)
    reached: float = 0.0
    running: int = 0
    entry: HeapEntry | None = None
    """Its valid entry in the runner's heap; its older entries are passed over."""

    def row(self, runner: str, owner: str) -> ShareRow:
        counters = [self.lines.get(priority) for priority in (1, 0, -1)]
        cells = [cell for one in counters for cell in ((one.settled, one.turn) if one else (None, None))]
        return ShareRow(runner, owner, self.own.settled, self.own.turn, self.reached, *cells)  # type: ignore[arg-type]

    @classmethod
    def of_row(cls, row: ShareRow) -> Share:
        share = cls(Counter(row.served, row.turn), reached=row.reached)
        cells = ((1, row.high, row.high_turn), (0, row.normal, row.normal_turn), (-1, row.low, row.low_turn))
        for priority, served, turn in cells:
            if served is not None and turn is not None:
                share.lines[priority] = Counter(served, turn)
        return share


class RunnerShares:
    """One runner: what its jobs cost, how far service has got, and the owners' shares."""

    def __init__(self, boosts_ms: Mapping[int, float]) -> None:
        self._boosts_ms = boosts_ms
        self._highest_boost = max(boosts_ms.values())
        self._heap: list[HeapEntry] = []
        self.shares: dict[str, Share] = {}
        self.reached = 0.0
        self.mean_ms: float | None = None
        self.crowd: Crowd | None = None
        """For positions among very many owners."""
        self._samples = 0

    def set_boosts(self, boosts_ms: Mapping[int, float]) -> None:
        """Rank all waiting owners again with other leads, beginning at the lowest rank that each can have now."""
        self._boosts_ms = boosts_ms
        self._highest_boost = max(boosts_ms.values())
        self.crowd = None
        self._rebuild([owner for owner, share in self.shares.items() if share.entry is not None])

    def share(self, owner: str, turn: int) -> Share:
        """The owner's share; a new one starts where service has got to."""
        share = self.shares.get(owner)
        if share is None:
            share = self.shares[owner] = Share(Counter(self.reached, turn))
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

    def rank(self, share: Share, lines: Lines) -> float:
        return share.own.served - self._boosts_ms[max(lines)]

    def enter(self, owner: str, share: Share) -> None:
        """The owner waits, or its rank may have fallen: note the lowest rank that it can have. It is ranked again when
        it comes to the top of the heap.
        """
        entry = (share.own.served - self._highest_boost, share.own.turn, owner)
        if share.entry is None or entry < share.entry:
            share.entry = entry
            heapq.heappush(self._heap, entry)

    def least_served(self, waiting: Waiting, limited: Waiting) -> str | None:
        """The waiting owner whose turn it is; None when no owner has a line left.

        ``limited`` holds the lines that are left to owners of whom some are passed over; it may be none of them.
        """
        aside: list[HeapEntry] = []
        if not len(waiting) <= len(self._heap) <= 4 * len(waiting) + 64:
            self._rebuild(waiting)
        owner = self._least_served(waiting, limited, aside)
        if owner is None and len(aside) < len(waiting):
            # An owner waits of whom the heap was never told.
            self._rebuild(waiting)
            aside.clear()
            owner = self._least_served(waiting, limited, aside)
        for entry in aside:
            heapq.heappush(self._heap, entry)
        return owner

    def _least_served(self, waiting: Waiting, limited: Waiting, aside: list[HeapEntry]) -> str | None:
        heap, shares = self._heap, self.shares
        best: HeapEntry | None = None
        while heap:
            entry = heap[0]
            owner = entry[2]
            share = shares.get(owner)
            lines = waiting.get(owner)
            if best is not None and best < entry:
                break
            if share is None or share.entry is not entry:
                heapq.heappop(heap)
            elif lines is None:
                share.entry = None
                heapq.heappop(heap)
            elif owner in limited:
                # Its entry is put back afterwards: with all its lines the owner may rank lower than now.
                aside.append(heapq.heappop(heap))
                if limited[owner]:
                    mine = (self.rank(share, limited[owner]), share.own.turn, owner)
                    best = mine if best is None else min(best, mine)
            else:
                fresh = (self.rank(share, lines), share.own.turn, owner)
                if fresh == entry:
                    return owner
                share.entry = fresh
                heapq.heapreplace(heap, fresh)
        return best and best[2]

    def row(self, runner: str) -> RunnerRow:
        return RunnerRow(runner, self.reached, self.mean_ms, self._samples)

    def restore(self, row: RunnerRow) -> None:
        self.reached, self.mean_ms, self._samples = row.reached, row.mean_ms, row.samples

    def _rebuild(self, owners: Iterable[str]) -> None:
        for share in self.shares.values():
            share.entry = None
        self._heap.clear()
        for owner in owners:
            self.enter(owner, self.share(owner, 0))


def exact(milliseconds: float) -> float:
    """Rounded to a 1024th."""
    return max(1.0, round(milliseconds * 1024)) / 1024
