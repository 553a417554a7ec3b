"""Whose turn it is: the least served goes first.

For a model, the owner with the smallest ``served − boost[its highest waiting priority]``; among equals the one that has
waited longest since its last claim, or since it began to wait. Within the owner, by the same rule, one of its
priorities; within that, the oldest job. ``served`` is backend time divided by the owner's weight, charged with the
expected cost at the claim and corrected at the end. Who begins to wait starts at the largest value that any claim has
reached: nobody saves up credit while away, and nobody is punished for having been alone.

That is start-time fair queueing (Goyal, Vin and Cheng, 1996) with bounded leads for priorities. Times are milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from service.job import Line, Priority

Waiting = Mapping[str, Mapping[int, int]]
"""Ready jobs of one model, by owner and priority."""

FIRST_GUESS_MS = 5_000.0
"""What a job of a model is thought to cost before any has ended."""
_LEARNING = 0.2


@dataclass(slots=True)
class Counter:
    """What somebody has been served, and since when it waits for the next."""

    served: float
    waiting_since: int


@dataclass(slots=True)
class Share:
    """One owner on one model: its own counter and one for each priority that it uses."""

    own: Counter
    priorities: dict[int, Counter] = field(default_factory=dict)
    reached: float = 0.0


@dataclass(slots=True)
class RunnerOrder:
    """One model: what its jobs cost, how far service has got, and the owners' shares."""

    mean_ms: float = FIRST_GUESS_MS
    reached: float = 0.0
    shares: dict[str, Share] = field(default_factory=dict)


class Order:
    """The order among the waiting jobs of each model."""

    def __init__(self, boosts_ms: Mapping[int, float]) -> None:
        self.boosts_ms = dict(boosts_ms)
        self.runners: dict[str, RunnerOrder] = {}
        self.weights: dict[str, float] = {}

    def begin_waiting(self, line: Line, now: int, waiting: Waiting) -> None:
        """A job arrived on ``line``; ``waiting`` are the ready jobs of its model before it."""
        model = self.runners.setdefault(line.runner, RunnerOrder())
        share = model.shares.get(line.owner)
        if share is None:
            share = model.shares[line.owner] = Share(Counter(model.reached, now))
        lines = waiting.get(line.owner, {})
        if not lines:
            share.own.served = max(share.own.served, model.reached)
            share.own.waiting_since = now
        if line.priority not in lines:
            counter = share.priorities.setdefault(line.priority, Counter(share.reached, now))
            counter.served = max(counter.served, share.reached)
            counter.waiting_since = now

    def pick(self, runner: str, waiting: Waiting) -> Line | None:
        """The line whose oldest job is next."""
        if not waiting:
            return None
        model = self.runners.setdefault(runner, RunnerOrder())
        owner = (
            next(iter(waiting))
            if len(waiting) == 1
            else min(waiting, key=lambda name: self._rank(model, name, waiting))
        )
        lines = waiting[owner]
        if len(lines) == 1:
            return Line(runner, owner, next(iter(lines)))
        counters = self._share(model, owner).priorities
        priority = min(lines, key=lambda word: self._line_rank(counters.get(word), word))
        return Line(runner, owner, priority)

    def charge(self, line: Line, now: int) -> float:
        """A job of the line was claimed: charge the expected cost, and say what was charged."""
        model = self.runners.setdefault(line.runner, RunnerOrder())
        share = self._share(model, line.owner)
        cost = model.mean_ms / self.weights.get(line.owner, 1.0)
        share.own.served += cost
        share.own.waiting_since = now
        model.reached = max(model.reached, share.own.served)
        counter = share.priorities.setdefault(line.priority, Counter(share.reached, now))
        counter.served += cost
        counter.waiting_since = now
        share.reached = max(share.reached, counter.served)
        return cost

    def refund(self, line: Line, charged: float) -> None:
        """The job that was charged for was not there."""
        self.correct(line, charged, 0.0, is_typical=False)

    def correct(self, line: Line, charged: float, used_ms: float, *, is_typical: bool) -> None:
        """The job ended after ``used_ms`` of a backend; ``is_typical`` when the model's mean is to learn from it."""
        model = self.runners.setdefault(line.runner, RunnerOrder())
        share = self._share(model, line.owner)
        difference = used_ms / self.weights.get(line.owner, 1.0) - charged
        share.own.served += difference
        counter = share.priorities.get(line.priority)
        if counter is not None:
            counter.served += difference
        if is_typical:
            model.mean_ms = (
                used_ms if model.mean_ms == FIRST_GUESS_MS else model.mean_ms + _LEARNING * (used_ms - model.mean_ms)
            )

    def ahead(self, line: Line, rank: int, waiting: Waiting) -> int:
        """How many ready jobs of the model go before the one that has ``rank`` jobs ahead in its own line."""
        model = self.runners.get(line.runner)
        mine = waiting.get(line.owner, {})
        if model is None or (len(waiting) <= 1 and len(mine) <= 1):
            return rank
        counters = self._share(model, line.owner).priorities
        cost = model.mean_ms / self.weights.get(line.owner, 1.0)
        own = rank + _passed(
            (
                (self._line_rank(counters.get(word), word)[0], jobs)
                for word, jobs in mine.items()
                if word != line.priority
            ),
            self._line_rank(counters.get(line.priority), line.priority)[0] + rank * cost,
            cost,
        )
        turn = self._rank(model, line.owner, waiting)[0] + own * cost if mine else model.reached
        others = (
            (self._rank(model, name, waiting)[0], sum(lines.values()) * self.weights.get(name, 1.0))
            for name, lines in waiting.items()
            if name != line.owner
        )
        return own + _passed(others, turn, model.mean_ms)

    def _rank(self, model: RunnerOrder, owner: str, waiting: Waiting) -> tuple[float, int]:
        counter = self._share(model, owner).own
        return counter.served - self.boosts_ms[max(waiting[owner])], counter.waiting_since

    def _line_rank(self, counter: Counter | None, priority: int) -> tuple[float, int]:
        if counter is None:
            return -self.boosts_ms[priority], 0
        return counter.served - self.boosts_ms[priority], counter.waiting_since

    @staticmethod
    def _share(model: RunnerOrder, owner: str) -> Share:
        share = model.shares.get(owner)
        if share is None:
            share = model.shares[owner] = Share(Counter(model.reached, 0))
        return share


def default_boosts_ms() -> dict[int, float]:
    """A lead of sixty backend seconds either way."""
    return {Priority.HIGH: 60_000.0, Priority.NORMAL: 0.0, Priority.LOW: -60_000.0}


def _passed(others: Iterable[tuple[float, float]], turn: float, cost: float) -> int:
    """How many jobs of the others go before ``turn``, each costing its owner ``cost``."""
    total = 0
    for start, jobs in others:
        if start <= turn:
            total += min(int(jobs), math.floor((turn - start) / cost) + 1)
    return total
