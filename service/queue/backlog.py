"""Who waits, and whose turn it is.

The backlog owns all that is kept in memory of the jobs that wait: how many there are (gauges), since when owners wait
(waits), who was served what (order), how lines move (ranks), how many jobs each key runs (key limits) and what room is
left (capacity). Nobody else changes any of them; ``gauges``, ``waits`` and ``order`` may be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from service.clock import Clock
from service.job import Job, Line, Status, model_of_runner
from service.queue.capacity import Capacity, QueueLimits
from service.queue.gauges import Gauge, Gauges
from service.queue.key_limits import KeyLimits
from service.queue.least_served import Place, Waiting
from service.queue.order import Order
from service.queue.ranks import Ranks
from service.queue.waits import Waits

_FIRST_GUESS_MS = 5_000.0
"""What a job is thought to take in an estimate, before any of its runner has ended."""


class Pick(NamedTuple):
    """A turn that was given to a line, and what it was charged for it in backend milliseconds."""

    line: Line
    charged_ms: float
    pays_load: bool = False
    """The owner is charged for the load as well: nobody else waits for what is loaded."""


def is_ready(job: Job) -> bool:
    """Whether a job waits for nothing but its turn."""
    return job.status == Status.QUEUED and job.not_before is None


def was_ready(ended: Job) -> bool:
    """Whether a job that has ended in the queue, as its row says now, was ready before that."""
    return ended.worker is None and ended.not_before is None


class Backlog:
    """The jobs that wait. ``process`` is the name of this process; ``work`` is set when a job may be given a seat."""

    def __init__(
        self,
        order: Order,
        key_limits: KeyLimits,
        limits: QueueLimits,
        clock: Clock,
        *,
        process: str,
        is_exclusive: bool,
        work: asyncio.Event,
    ) -> None:
        self.limits = limits
        """Replaced by a reload."""
        self.gauges = Gauges()
        self.waits = Waits()
        self.order = order
        self.ranks = Ranks(is_enabled=is_exclusive)
        self.newest = 0
        """The largest number of a stored job that is known here."""
        self.due_changed = asyncio.Event()
        """Set when a job will fall due or expire earlier than was known."""
        self._key_limits = key_limits
        self._capacity = Capacity(self.gauges, clock)
        self._clock = clock
        self._process = process
        self._work = work
        self._doubtful: set[Line] = set()
        self._is_counted = False
        """Whether the gauges were set from the rows since the start."""

    # What happens to jobs

    def check_capacity(self, size: int, owner: str, *, is_admins: bool = False) -> None:
        """Raises QueueFullError or LimitReachedError when no job with ``size`` bytes of this owner may wait as well."""
        self._capacity.check(self.limits, size, owner, is_admins=is_admins)

    def arrive(self, line: Line, size: int, now: int, *, is_ready: bool) -> None:
        """A new job is in the queue."""
        if is_ready:
            self._begin_waiting(line, now)
        self.gauges.arrive(line, Status.QUEUED, size, is_ready=is_ready)
        if is_ready:
            self._note_wait(line, now)
        self._work.set()

    def start(self, line: Line, size: int, now: int, *, pays_load: bool = False) -> Pick:
        """A new job begins without waiting."""
        self.order.begin_waiting(line, now, {})
        self._key_limits.take(line.owner)
        self.gauges.arrive(line, Status.PROCESSING, size, is_ready=False)
        return Pick(line, self.order.charge(line, now), pays_load)

    def leave(self, gauge: Gauge, *, was_ready: bool = False) -> None:
        """A job is gone without an end: it was never committed, or is pruned."""
        self.gauges.leave(gauge.line, gauge.status, gauge.size, was_ready=was_ready)
        if was_ready:
            self.ranks.disturb(gauge.line)
            self._note_wait(gauge.line, self._clock.now_ms())

    def moved(self, job: Job, before: str | None, ready: int, now: int) -> None:
        """A stored job has changed its status from ``before`` (None: another process made it). ``ready`` is what its
        line gains or loses by it in jobs that are ready.
        """
        here = ready if self.may_claim(job) else 0
        if ready and before is not None:
            self.ranks.disturb(job.line)
        if here > 0:
            self._begin_waiting(job.line, now)
        if before is None:
            self.gauges.arrive(job.line, job.status, job.size, is_ready=here > 0)
        elif before == job.status:
            self.gauges.add_ready(job.line, here)
        else:
            self.gauges.move(job.line, before, job.status, job.size, ready=here)
        if here:
            self._note_wait(job.line, now)

    def returned(self, job: Job) -> None:
        """A job waits again: somebody may have a seat for it now, or must come back when it is due."""
        (self._work if is_ready(job) else self.due_changed).set()

    def end(self, line: Line, charged_ms: float, used_ms: float, *, is_typical: bool, load_ms: float = 0.0) -> None:
        """An attempt has given its seat back after ``used_ms`` of a backend, and a load of ``load_ms`` that its owner
        pays; ``is_typical`` when it ran to its end.
        """
        self.order.correct(line, charged_ms, used_ms, is_typical=is_typical, load_ms=load_ms)
        if self._key_limits.free(line.owner):
            self._work.set()

    def finished(self, now: int) -> None:
        """A job that ran is final: from how fast that goes callers are told when to come again."""
        self._capacity.finished(now)

    # Whose turn it is

    def pick(
        self, runner: str, owners: Collection[str] | None = None, passed_over: Collection[Line] = ()
    ) -> Pick | None:
        """Give a turn to one of those who wait for a runner, or of these owners: charged at once, and to be claimed or
        given back. Lines may be passed over. None: nobody may have it.
        """
        line = self.peek(runner, owners, passed_over)
        if line is None:
            return None
        now = self._clock.now_ms()
        self.gauges.add_ready(line, -1)
        self.waits.turn(line, now)
        self._note_wait(line, now)
        self.ranks.take(line)
        self._key_limits.take(line.owner)
        return Pick(line, self.order.charge(line, now))

    def peek(
        self, runner: str, owners: Collection[str] | None = None, passed_over: Collection[Line] = ()
    ) -> Line | None:
        """The line that :meth:`pick` would give a turn."""
        waiting = self.waiting_for(runner)
        without = self._key_limits.held_lines(runner, waiting)
        if passed_over:
            without = {*without, *passed_over}
        if self._doubtful:
            without = {*without, *(line for line in self._doubtful if line.runner == runner)}
        return self.order.pick(runner, waiting, without, owners)

    def give_back(self, pick: Pick) -> None:
        """The turn could not be used."""
        self.gauges.add_ready(pick.line, 1)
        self._note_wait(pick.line, self._clock.now_ms())
        self._key_limits.free(pick.line.owner)
        self.order.refund(pick.line, pick.charged_ms)

    def claimed(self, picks: Sequence[Pick], jobs: Sequence[Job]) -> None:
        """These jobs were found for the turns of one line; the turns that are left over are given back."""
        line = picks[0].line
        for pick in picks[len(jobs) :]:
            self.give_back(pick)
        self.ranks.taken(line, len(picks), len(jobs))
        for job in jobs:
            self.gauges.move(line, Status.QUEUED, Status.PROCESSING, job.size)

    def doubt(self, line: Line) -> None:
        """Fewer jobs were found on this line than are counted: nobody is picked there until it is trusted again."""
        self._doubtful.add(line)

    def trust(self, line: Line | None = None) -> None:
        """What is counted of this line, or of all lines, is right again."""
        if line is None:
            self._doubtful.clear()
        else:
            self._doubtful.discard(line)

    # What can be asked

    @property
    def has_doubts(self) -> bool:
        return bool(self._doubtful)

    @property
    def has_waiting(self) -> bool:
        """Whether any job could be claimed."""
        # Asked for every reply, and mostly nothing waits.
        waiting = self.gauges.waiting
        return bool(waiting) and any(map(self.has_ready, waiting))

    def has_ready(self, runner: str) -> bool:
        """Whether any job waits for this runner, and not for its key alone."""
        return self._key_limits.any_may_run(self.waiting_for(runner))

    def may_start(self, line: Line) -> bool:
        """Whether a new job of this line could begin at once: an owner with queued jobs in it cannot, nor one whose key
        runs as many jobs as it may.
        """
        return not self.gauges.ready(line) and self._key_limits.may_run(line.owner)

    def may_run(self, owner: str) -> bool:
        """Whether the key of this owner may run one more job."""
        return self._key_limits.may_run(owner)

    def may_claim(self, job: Job) -> bool:
        """Whether this process may claim a job when it is ready: not if its caller waits at another."""
        return job.caller_at is None or job.caller_at == self._process

    def waiting_for(self, runner: str) -> Waiting:
        """Ready jobs of a runner by owner and priority. Read it, and never keep it."""
        return self.gauges.waiting.get(runner, _NOBODY)

    def place(self, runner: str, owner: str) -> Place:
        """Where an owner that waits for this runner stands among those of its model: the smallest is next."""
        return self.order.place(model_of_runner(runner), owner, self.waiting_for(runner)[owner])

    def may_have_turn(self, runner: str, owner: str) -> bool:
        """Whether an owner that waits for this runner may have a turn now."""
        if not self._key_limits.may_run(owner):
            return False
        return not self._doubtful or any(
            Line(runner, owner, priority) not in self._doubtful for priority in self.waiting_for(runner)[owner]
        )

    def ahead(self, line: Line, rank: int, own_before: Collection[str] = ()) -> int:
        """How many ready jobs of the model go before the one that has ``rank`` jobs ahead in its own line.

        ``own_before`` are runners of the model whose jobs its owner has served before those of this one.
        """
        rank = max(0, rank) + sum(self.gauges.ready(line._replace(runner=runner)) for runner in own_before)
        return self.order.ahead(line, rank, self.gauges.waiting_by_model.get(line.model, _NOBODY))

    def expected_ms(self, runner: str) -> float:
        """What a job of this runner takes of a backend."""
        return self.order.expected_ms(model_of_runner(runner)) or _FIRST_GUESS_MS

    # Counting anew

    def count(self, gauges: Iterable[Gauge], held: Mapping[Line, int], newest: int) -> None:
        """Begin anew from a grouped count of all rows; ``held`` are the queued jobs that nobody may claim here now."""
        self.newest = newest
        before = {
            model: {owner: dict(lines) for owner, lines in owners.items()}
            for model, owners in self.gauges.waiting_by_model.items()
        }
        self.gauges.set(gauges, held)
        now = self._clock.now_ms()
        present = [
            Line(runner, owner, priority)
            for runner, owners in self.gauges.waiting.items()
            for owner, priorities in owners.items()
            for priority in priorities
        ]
        for line in present:
            known = before.get(line.model, {})
            # An owner that waited already, here or before a restart, keeps its place.
            if not self._is_counted or line.priority in known.get(line.owner, {}):
                self.order.keep_waiting(line, now)
            else:
                self.order.begin_waiting(line, now, known)
            self.waits.begin(line, now)
        self.waits.only(present)
        self._is_counted = True

    def _begin_waiting(self, line: Line, now: int) -> None:
        """A job of this line is about to be ready."""
        if not self.gauges.ready(line):
            self.order.begin_waiting(line, now, self.gauges.waiting_by_model.get(line.model, _NOBODY))

    def _note_wait(self, line: Line, now: int) -> None:
        """It has changed what is counted of this line."""
        if line.owner in self.waiting_for(line.runner):
            self.waits.begin(line, now)
        else:
            self.waits.end(line)


_NOBODY: Waiting = {}
