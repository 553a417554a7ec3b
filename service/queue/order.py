"""The order among the waiting jobs of each runner. Pure: it is told what happens, and asked whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping

from service.job import Line
from service.queue.order_rows import RunnerRow, ShareRow
from service.queue.position import jobs_before
from service.queue.shares import Counter, RunnerShares, Share, Waiting, exact

_REMEMBERED_RUNNERS = 1000


class Order:
    """Who was served what, and who is next. ``boosts_ms`` is the lead of each priority, in backend milliseconds;
    ``weights`` are those of owners that have another than 1: seconds count for less with a higher weight.
    """

    def __init__(self, boosts_ms: Mapping[int, float], weights: Mapping[str, float] | None = None) -> None:
        self._boosts_ms = _as_floats(boosts_ms)
        self._weights: Mapping[str, float] = {} if weights is None else weights
        self._runners: dict[str, RunnerShares] = {}
        self._changed: dict[tuple[str, str], Line] = {}
        self._last_turn = 0
        self.has_changed = asyncio.Event()
        """Set while there are changes that :meth:`take_changes` has not given yet."""

    def set_boosts(self, boosts_ms: Mapping[int, float]) -> None:
        """Priorities lead by these from now on; what owners were served stays as it is."""
        self._boosts_ms = _as_floats(boosts_ms)
        for runner in self._runners.values():
            runner.set_boosts(self._boosts_ms)

    # What happens

    def begin_waiting(self, line: Line, now: int, waiting: Waiting) -> None:
        """A job arrived on ``line``; ``waiting`` are the ready jobs of its runner before it."""
        runner = self._runner(line.runner)
        lines = waiting.get(line.owner)
        if lines and line.priority in lines:
            return
        turn = self._next_turn(now)
        share = runner.share(line.owner, turn)
        if not lines:
            share.own.served = max(share.own.served, runner.reached)
            share.own.turn = turn
        counter = share.lines.setdefault(line.priority, Counter(share.reached, turn))
        counter.served = max(counter.served, share.reached)
        counter.turn = turn
        runner.enter(line.owner, share)

    def keep_waiting(self, line: Line, now: int) -> None:
        """Jobs of ``line`` were found in the store at the start: they waited before, so their owner loses nothing."""
        runner = self._runner(line.runner)
        share = runner.share(line.owner, self._next_turn(now))
        share.lines.setdefault(line.priority, Counter(share.reached, share.own.turn))
        runner.enter(line.owner, share)

    def charge(self, line: Line, now: int) -> float:
        """A job of the line was claimed: charge the expected cost, and say what was charged."""
        runner = self._runner(line.runner)
        turn = self._next_turn(now)
        share = runner.share(line.owner, turn)
        cost = runner.cost(self._weight(line.owner))
        share.running += 1
        share.own.charge(cost, turn)
        runner.reached = max(runner.reached, share.own.served)
        if runner.crowd is not None:
            runner.crowd.age += 1
        counter = share.lines.setdefault(line.priority, Counter(share.reached, turn))
        counter.charge(cost, turn)
        share.reached = max(share.reached, counter.served)
        return cost

    def refund(self, line: Line, charged: float) -> None:
        """The job that was charged for was not there."""
        self._settle(line, charged, 0.0)

    def correct(self, line: Line, charged: float, used_ms: float, *, is_typical: bool) -> None:
        """The job ended after ``used_ms`` of a backend, loads aside; ``is_typical`` when it ran to its own end."""
        self._settle(line, charged, exact(used_ms / self._weight(line.owner)))
        self._runner(line.runner).learn(used_ms, is_typical=is_typical)
        self._changed[line.runner, line.owner] = line
        self.has_changed.set()

    # What to do

    def pick(self, runner: str, waiting: Waiting, without: Collection[Line] = ()) -> Line | None:
        """The waiting line whose oldest job is next; ``without`` are lines of this runner to pass over."""
        known = self._runner(runner)
        limited = _left(waiting, without)
        owner: str | None = next(iter(waiting), None)
        if len(waiting) > 1:
            owner = known.least_served(waiting, limited)
        if owner is None:
            return None
        lines = limited.get(owner, waiting[owner])
        if len(lines) <= 1:
            return Line(runner, owner, next(iter(lines))) if lines else None
        share = known.share(owner, 0)
        return Line(runner, owner, min(lines, key=lambda priority: self._line_rank(share, priority)))

    def ahead(self, line: Line, rank: int, waiting: Waiting) -> int:
        """How many ready jobs of the runner go before the one that has ``rank`` jobs ahead in its own line.

        The number is exact as things stand; when very many owners wait it is an estimate.
        """
        runner = self._runners.get(line.runner)
        lines = waiting.get(line.owner, {})
        is_alone = not waiting or (len(waiting) == 1 and line.owner in waiting)
        if runner is None or (is_alone and len(lines) <= 1):
            return rank
        return jobs_before(runner, line, rank, waiting, self._boosts_ms, self._weight)

    def expected_ms(self, runner: str) -> float | None:
        """What a job is thought to cost of a backend; None before any has ended."""
        known = self._runners.get(runner)
        return None if known is None else known.mean_ms

    # What is kept

    def take_changes(self) -> list[Line]:
        """One line of each runner and owner whose counters have changed since this was last asked."""
        changed, self._changed = self._changed, {}
        self.has_changed.clear()
        return list(changed.values())

    def put_back(self, lines: Iterable[Line]) -> None:
        """These changes could not be stored: they are given again with the next change."""
        self._changed = {(line.runner, line.owner): line for line in lines} | self._changed

    def runner_row(self, runner: str) -> RunnerRow:
        """To be stored with an outcome on this runner."""
        return self._runner(runner).row(runner)

    def share_row(self, line: Line) -> ShareRow:
        """To be stored with an outcome of this line's owner."""
        return self._runner(line.runner).share(line.owner, 0).row(line.runner, line.owner)

    def restore(self, runners: Iterable[RunnerRow], shares: Iterable[ShareRow]) -> None:
        """Go on from what was stored; what waits is told with :meth:`keep_waiting` afterwards."""
        for one in runners:
            self._runner(one.runner).restore(one)
        for row in shares:
            share = Share.of_row(row)
            self._runner(row.runner).shares[row.owner] = share
            self._last_turn = max(self._last_turn, row.turn, *(counter.turn for counter in share.lines.values()))

    def forget_idle(self, waiting: Mapping[str, Waiting]) -> tuple[list[str], list[tuple[str, str]]]:
        """Forget each owner that stands as a newcomer would; returns which rows may go: those of the runners, and those
        of the owners, each with its runner.

        ``waiting`` are the ready jobs of all runners. On a runner without waiting and running jobs, nobody is ahead.
        """
        shares: list[tuple[str, str]] = []
        idle: list[str] = []
        for runner, known in self._runners.items():
            present = waiting.get(runner, {})
            is_idle = not present and not any(share.running for share in known.shares.values())
            gone = [
                owner
                for owner, share in known.shares.items()
                if is_idle or (owner not in present and not share.running and share.own.served <= known.reached)
            ]
            shares += ((runner, owner) for owner in gone)
            for owner in gone:
                del known.shares[owner]
                self._changed.pop((runner, owner), None)
            if is_idle:
                idle.append(runner)
        runners = idle[: max(0, len(self._runners) - _REMEMBERED_RUNNERS)]
        for runner in runners:
            del self._runners[runner]
        return runners, shares

    # Within

    def _settle(self, line: Line, charged: float, cost: float) -> None:
        runner = self._runner(line.runner)
        share = runner.share(line.owner, 0)
        share.running -= 1
        share.own.settle(charged, cost)
        counter = share.lines.get(line.priority)
        if counter is not None:
            counter.settle(charged, cost)
        runner.enter(line.owner, share)

    def _runner(self, runner: str) -> RunnerShares:
        known = self._runners.get(runner)
        if known is None:
            known = self._runners[runner] = RunnerShares(self._boosts_ms)
        return known

    def _line_rank(self, share: Share, priority: int) -> tuple[float, int]:
        counter = share.lines.get(priority)
        served, turn = (counter.served, counter.turn) if counter else (share.reached, 0)
        return served - self._boosts_ms[priority], turn

    def _weight(self, owner: str) -> float:
        return self._weights.get(owner, 1.0)

    def _next_turn(self, now: int) -> int:
        """The present, and later than every turn before it: claims of one millisecond keep their order."""
        self._last_turn = max(now, self._last_turn + 1)
        return self._last_turn


def _as_floats(boosts_ms: Mapping[int, float]) -> dict[int, float]:
    return {priority: float(boost) for priority, boost in boosts_ms.items()}


def _left(waiting: Waiting, without: Collection[Line]) -> Waiting:
    """The lines that are left to each owner of whom some are passed over."""
    left: dict[str, dict[int, int]] = {}
    for _, owner, priority in without:
        if owner in waiting:
            left.setdefault(owner, dict(waiting[owner])).pop(priority, None)
    return left
