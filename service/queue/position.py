"""How many jobs go before a given one, without playing the order through.

While nothing changes, the rank of an owner rises by the cost of each job that is claimed, and by the difference of two
boosts with the last job of its highest priority. So a division says how many of its jobs go before a given rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from service.job import Line
from service.queue.crowd import Crowd, Stretch
from service.queue.least_served import Lines, Waiting
from service.queue.shares import Counter, ModelShares, Share

_EXACT_OWNERS = 64
_LATEST_TURN = 1 << 62
"""Later than any turn that was given."""
_RENEWED_AFTER = 1 / 16
"""How old a picture of a crowd may grow before it is made anew, for each owner that waits; see :attr:`Crowd.age`."""


class _Plan(NamedTuple):
    """The ranks at which the jobs of an owner, or of one of its lines, will be claimed."""

    stretches: tuple[Stretch, ...]
    cost: float
    turn: int

    def rank(self, index: int) -> float:
        stretch = next(one for one in reversed(self.stretches) if one.first <= index)
        return stretch.rank + (index - stretch.first) * self.cost

    def before(self, other: _Plan, index: int, rank: float) -> int:
        """How many of these jobs go before the other's job ``index``, which has that rank."""
        total = 0
        for stretch in self.stretches:
            if stretch.rank > rank:
                break
            whole = int((rank - stretch.rank) // self.cost)
            if whole >= stretch.jobs:
                total += stretch.jobs
            elif stretch.rank + whole * self.cost < rank:
                total += whole + 1
            else:
                total += whole + self._is_earlier(stretch.first + whole, other, index)
        return total

    def _is_earlier(self, mine: int, other: _Plan, index: int) -> bool:
        """Whether a job of this plan goes before a job of equal rank: it does when its predecessor went first."""
        if len(self.stretches) == len(other.stretches) == 1 and self.cost == other.cost:
            return mine < index or (mine == index and self.turn < other.turn)
        while mine and index:
            mine, index = mine - 1, index - 1
            ranks = self.rank(mine), other.rank(index)
            if ranks[0] != ranks[1]:
                return ranks[0] < ranks[1]
        return mine < index or (mine == index and self.turn < other.turn)


def jobs_before(
    model: ModelShares,
    line: Line,
    rank: int,
    waiting: Waiting,
    boosts_ms: Mapping[int, float],
    weight: Callable[[str], float],
) -> int:
    """How many ready jobs go before the one with ``rank`` jobs ahead in its own line.

    The number is exact among a few owners, while nobody comes or leaves and every job costs what is expected.
    """
    lines = dict(waiting.get(line.owner, {}))
    lines[line.priority] = max(lines.get(line.priority, 0), rank + 1)
    cost = model.cost(weight(line.owner))
    share = model.shares.get(line.owner)
    if share is None or line.owner not in waiting:
        share = _newcomers(share, model.begins_at(waiting, cost, line.priority))
    own = _index(share, lines, line.priority, rank, cost, boosts_ms)
    mine = _plan(share, lines, cost, boosts_ms)
    turn = mine.rank(own)

    def plans() -> Iterator[tuple[str, _Plan]]:
        for owner, theirs in waiting.items():
            known = model.shares.get(owner)
            if known is not None:
                yield owner, _plan(known, theirs, model.cost(weight(owner)), boosts_ms)

    if len(waiting) <= _EXACT_OWNERS:
        return own + sum(plan.before(mine, own, turn) for owner, plan in plans() if owner != line.owner)
    crowd = model.crowd
    most = len(waiting) * _RENEWED_AFTER
    if crowd is None or crowd.age > most or abs(crowd.owners - len(waiting)) > most:
        crowd = model.crowd = Crowd({owner: plan.stretches for owner, plan in plans()})
    crowd.age += 1
    return own + crowd.before(line.owner, own, turn, mine.turn)


def _newcomers(known: Share | None, begin: float) -> Share:
    """The share of an owner of whom nobody waits, as it would be if a job came now: see ``Order.begin_waiting``."""
    if known is None:
        return Share(Counter(begin, _LATEST_TURN))
    return Share(Counter(max(known.own.served, begin), _LATEST_TURN), known.lines, known.reached)


def _plan(share: Share, lines: Lines, cost: float, boosts_ms: Mapping[int, float]) -> _Plan:
    served = share.own.served
    if len(lines) == 1:
        ((priority, jobs),) = lines.items()
        return _Plan((Stretch(0, jobs, served - boosts_ms[priority], cost, share.own.turn),), cost, share.own.turn)
    total = sum(lines.values())
    stretches = []
    first = 0
    for priority in sorted(lines, reverse=True):
        # An owner leads by its highest waiting priority, until the last job of that priority is claimed.
        end = max(first, 1 + _index(share, lines, priority, lines[priority] - 1, cost, boosts_ms))
        if end > first:
            stretches.append(
                Stretch(first, end - first, served + first * cost - boosts_ms[priority], cost, share.own.turn)
            )
        first = end
        if first == total:
            break
    return _Plan(tuple(stretches), cost, share.own.turn)


def _index(share: Share, lines: Lines, priority: int, rank: int, cost: float, boosts_ms: Mapping[int, float]) -> int:
    """How many jobs of the owner go before the one with ``rank`` jobs ahead in its line."""
    if len(lines) == 1:
        return rank
    plans = {one: _line_plan(share, one, jobs, cost, boosts_ms) for one, jobs in lines.items()}
    mine = plans.pop(priority)
    return rank + sum(other.before(mine, rank, mine.rank(rank)) for other in plans.values())


def _line_plan(share: Share, priority: int, jobs: int, cost: float, boosts_ms: Mapping[int, float]) -> _Plan:
    counter = share.lines.get(priority)
    served, turn = (counter.served, counter.turn) if counter else (share.reached, 0)
    return _Plan((Stretch(0, jobs, served - boosts_ms[priority], cost, turn),), cost, turn)
