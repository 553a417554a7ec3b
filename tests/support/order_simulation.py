"""A queue for one runner in simulated time: the real order, a number of seats, and jobs that take what they take."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from service.job import Line, Priority
from service.queue import ModelRow, Order, ShareRow

RUNNER = "llama3.2:latest"
BOOSTS_MS: dict[int, float] = {Priority.HIGH: 60_000.0, Priority.NORMAL: 0.0, Priority.LOW: -60_000.0}


@dataclass(slots=True, eq=False)
class SimulatedJob:
    """A job and the times (milliseconds) of what became of it."""

    line: Line
    cost: int
    arrived: int
    claims_before: int
    """How many claims there had been when it arrived."""
    started: int | None = None
    ended: int | None = None
    charged: float = 0.0

    @property
    def owner(self) -> str:
        return self.line.owner

    @property
    def waited(self) -> int:
        assert self.started is not None
        return self.started - self.arrived


@dataclass
class SimulatedQueue:
    """Events in the order of their times; after each, free seats are given out."""

    seats: int = 1
    boosts_ms: Mapping[int, float] = field(default_factory=lambda: dict(BOOSTS_MS))
    expected_ms: float | None = None
    """What a job is thought to cost from the beginning on; None: nothing is known."""
    runner: str = RUNNER

    def __post_init__(self) -> None:
        self.now = 0
        self.weights: dict[str, float] = {}
        self.order = Order(self.boosts_ms, self.weights)
        if self.expected_ms is not None:
            self.order.restore([ModelRow(self.runner, 0.0, self.expected_ms, 8)], [])
        self.waiting: dict[str, dict[int, int]] = {}
        self.owners: dict[str, None] = {}
        """Whoever has sent a job, in the order in which they came."""
        self.running: list[SimulatedJob] = []
        self.claims: list[SimulatedJob] = []
        self.charges: list[float] = []
        self.on_claim: Callable[[SimulatedJob], object] = lambda job: None
        self.on_event: Callable[[], object] = lambda: None
        self._lines: defaultdict[Line, deque[SimulatedJob]] = defaultdict(deque)
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._used: defaultdict[str, int] = defaultdict(int)
        self._number = 0

    # What a test does

    def submit(self, owner: str, cost: int, priority: int = Priority.NORMAL) -> SimulatedJob:
        """A job arrives now."""
        line = Line(self.runner, owner, priority)
        job = SimulatedJob(line, cost, self.now, len(self.claims))
        self.owners[owner] = None
        self.order.begin_waiting(line, self.now, self.waiting)
        self._lines[line].append(job)
        self._count(line, 1)
        return job

    def submit_all(self, owner: str, costs: Iterable[int], priority: int = Priority.NORMAL) -> list[SimulatedJob]:
        return [self.submit(owner, cost, priority) for cost in costs]

    def keep_waiting(self, owner: str, costs: Callable[[], int], priorities: Callable[[], int] | None = None) -> None:
        """The owner has two jobs waiting, and sends the next whenever one is claimed."""
        draw = priorities or (lambda: Priority.NORMAL)
        before = self.on_claim

        def again(job: SimulatedJob) -> None:
            before(job)
            if job.owner == owner:
                self.submit(owner, costs(), draw())

        self.on_claim = again
        for _ in range(2):
            self.submit(owner, costs(), draw())

    def at(self, time: int, action: Callable[[], object]) -> None:
        """Have something done at that time."""
        self._number += 1
        heapq.heappush(self._events, (time, self._number, lambda: (action(), None)[1]))

    def cancel(self, job: SimulatedJob) -> None:
        """End a job that waits or runs."""
        if job.started is None:
            self._lines[job.line].remove(job)
            self._count(job.line, -1)
            job.ended = self.now
        elif job.ended is None:
            self._end(job)

    def run(self, until: int | None = None, *, claims: int | None = None, start: SimulatedJob | None = None) -> None:
        """Let time pass: up to a time, a number of claims, the start of a job, or until nothing happens any more."""
        self._give_out_seats()
        while self._events and (until is None or self._events[0][0] <= until):
            if (claims is not None and len(self.claims) >= claims) or (start is not None and start.started is not None):
                return
            self.now, _, action = heapq.heappop(self._events)
            action()
            self._give_out_seats()
            self.on_event()
        if until is not None:
            self.now = max(self.now, until)

    # What a test asks

    def served(self, owner: str) -> int:
        """Milliseconds of the backend that the owner has used until now."""
        running = sum(self.now - (job.started or 0) for job in self.running if job.owner == owner)
        return self._used[owner] + running

    def claimed(self, owner: str) -> list[SimulatedJob]:
        return [job for job in self.claims if job.owner == owner]

    def passed(self, job: SimulatedJob) -> dict[str, int]:
        """How many jobs of each other owner were claimed between this job's arrival and its claim."""
        counts: defaultdict[str, int] = defaultdict(int)
        end = self.claims.index(job) if job in self.claims else len(self.claims)
        for other in self.claims[job.claims_before : end]:
            if other.owner != job.owner:
                counts[other.owner] += 1
        return counts

    def rows(self) -> tuple[list[ModelRow], list[ShareRow]]:
        """What the order remembers: the rows to be stored of its runner, and of each owner that it has not forgotten.

        It is asked for each owner by name; whoever it had forgotten is a newcomer to it, who never had a turn.
        """
        rows = [self.order.share_row(Line(self.runner, owner, Priority.NORMAL)) for owner in self.owners]
        return [self.order.model_row(self.runner)], [row for row in rows if row.turn]

    # Within

    def _give_out_seats(self) -> None:
        while len(self.running) < self.seats:
            line = self.order.pick(self.runner, self.waiting)
            if line is None:
                return
            job = self._lines[line].popleft()
            self._count(line, -1)
            job.charged = self.order.charge(line, self.now)
            self.charges.append(job.charged)
            job.started = self.now
            self.running.append(job)
            self.claims.append(job)
            self.at(self.now + job.cost, lambda job=job: self._end(job))  # type: ignore[misc]
            self.on_claim(job)

    def _end(self, job: SimulatedJob) -> None:
        if job.ended is not None:
            return
        used = self.now - (job.started or 0)
        job.ended = self.now
        self.running.remove(job)
        self._used[job.owner] += used
        self.order.correct(job.line, job.charged, used, is_typical=used == job.cost)

    def _count(self, line: Line, jobs: int) -> None:
        lines = self.waiting.setdefault(line.owner, {})
        lines[line.priority] = lines.get(line.priority, 0) + jobs
        if not lines[line.priority]:
            del lines[line.priority]
        if not lines:
            del self.waiting[line.owner]
