"""Our own scheduler with its backlog and pool, in simulated time, over models of Ollama's.

Times are milliseconds.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from functools import partial

from corral.breaker import Breaker
from service.backend.backend import Backend
from service.backend.breakers import Breakers
from service.backend.calls import Call
from service.backend.client import BackendClient
from service.backend.http.connections import Connections
from service.backend.models import Listed
from service.backend.placement import is_remote
from service.backend.pool import Pool
from service.config import BackendConfig, Config, RetryConfig
from service.errors import BackendError
from service.job import Job, Line, Priority, model_of_runner, runner_key
from service.queue import Order
from service.queue.backlog import Backlog, Pick
from service.queue.capacity import QueueLimits
from service.queue.key_limits import KeyLimits
from service.scheduling.scheduler import Scheduler
from service.workers.retry_policy import Failure, TryAgain, decide
from tests.support.ollama_in_time import Fits, SimulatedOllama, Timeline, one_at_a_time
from tests.support.order_simulation import BOOSTS_MS
from tests.support.simulated_jobs import SimulatedBackend, SimulatedClock, SimulatedJob

PROBE_MS = 2
"""Between the question ``/api/ps`` and its answer, which is of the moment when it comes."""
PROBE_INTERVAL_MS = 10_000
LOADING_PROBE_MS = 500
POLL_MS = 1_000

A, B, C, D = (runner_key(name) for name in "abcd")
A_LONG = runner_key("a", {"num_ctx": 32_768})
CLOUD = runner_key("big:cloud")
SWAP_WAIT = 30_000
ROW = Job(**dict.fromkeys(Job._fields, 0))  # type: ignore[arg-type]
"""A claimed job, of which only the size is read."""


class SimulatedService:
    """The scheduler with its backlog and pool; what the dispatcher, the workers and the probes do around them."""

    def __init__(self, *, max_swap_wait_ms: int = 30_000, is_naive: bool = False) -> None:
        self.time = Timeline()
        self.clock = SimulatedClock(self.time)
        self.backends: list[SimulatedBackend] = []
        self.jobs: list[SimulatedJob] = []
        self.on_event: Callable[[], object] = lambda: None
        self.unfinished = 0
        self._lines: defaultdict[Line, deque[SimulatedJob]] = defaultdict(deque)
        self._max_swap_wait_ms = max_swap_wait_ms
        self._is_naive = is_naive
        self.sent: list[SimulatedJob] = []
        """Every attempt's job, in the order in which they went to a backend; and when they did."""
        self.sent_at: list[int] = []
        self._looks: set[int] = set()
        self.key_limit: int | None = None
        """How many jobs each owner may have running."""
        self.backlog = Backlog(
            Order(BOOSTS_MS),
            KeyLimits(lambda _key_id: self.key_limit),
            QueueLimits(1_000_000, 1 << 40, 1 << 20),
            self.clock,
            process="one",
            is_exclusive=True,
            work=asyncio.Event(),
        )
        self._use_pool()
        self._poll()

    # What a test does

    def add_backend(
        self,
        name: str = "one",
        *,
        fits: Fits = one_at_a_time,
        load_ms: int = 1_000,
        seats: int = 4,
        slowness: float = 1.0,
        loaded: Iterable[str] = (),
        unfit: Collection[str] = (),
    ) -> SimulatedBackend:
        """``loaded`` are runners that it has before we come; ``slowness`` multiplies what a job takes; of ``unfit``
        it is known that no two fit together.
        """
        ollama = SimulatedOllama(self.time, fits, load_ms)
        ollama.loaded = {model_of_runner(runner): runner for runner in loaded}
        client = BackendClient(Connections(), "http://127.0.0.1", name=name)
        breakers = Breakers(partial(Breaker, lambda: self.time.now / 1000))
        own = Backend(BackendConfig(name=name, concurrency=seats), client, breakers, self._max_swap_wait_ms)
        own.is_answering = True
        for pair in itertools.combinations(sorted({model_of_runner(runner) for runner in unfit}), 2):
            own.placement.fitting.refuse(set(pair), self.time.now)
        backend = SimulatedBackend(own, ollama, slowness)
        self.backends.append(backend)
        self._use_pool()
        self._see(backend)
        self._probe_regularly(backend)
        return backend

    def submit(
        self,
        runner: str,
        cost: int,
        on_end: Callable[[], object] = lambda: None,
        *,
        owner: str = "owner",
        priority: int = Priority.NORMAL,
        error: BackendError | None = None,
        has_keep_alive: bool = False,
    ) -> SimulatedJob:
        """A job comes in, and begins at once where there is a seat and nobody waits. With ``error`` it always fails."""
        line, now = Line(runner, owner, priority), self.time.now
        job = SimulatedJob(line, cost, now, len(self.jobs), error, has_keep_alive=has_keep_alive, on_end=on_end)
        self.jobs.append(job)
        self.unfinished += 1
        if not self._is_naive and self.backlog.may_start(line):
            reserved = self.scheduler.reserve(line)
            if reserved is not None:
                job.trial = reserved.trial
                job.pick = self.backlog.start(line, 0, now, pays_load=reserved.pays_load)
                self._send(self._simulated(reserved.backend), job)
                return job
        self._wait(job)
        return job

    def abandon(self, job: SimulatedJob) -> None:
        """The caller of a job that has had no byte leaves, or its connection is lost."""
        assert job.started is not None
        assert job.first_byte is None
        self._end(next(one for one in self.backends if one.name == job.backend), job)

    def keep_busy(self, runner: str, cost: int, callers: int) -> None:
        """Each caller sends its next only after its answer."""

        def send() -> None:
            self.submit(runner, cost, send)

        for _ in range(callers):
            send()

    def run(self, until: int | None = None) -> None:
        """Let time pass: up to a time, or until every job has ended."""
        while self.unfinished if until is None else self.time.now < until:
            if until is not None and self.time.next_at > until:
                self.time.now = until
                return
            self.time.step()
            assert self.time.now < 10**9, "jobs wait for ever"
            self.on_event()

    @property
    def loads(self) -> int:
        return sum(backend.ollama.loads for backend in self.backends)

    @property
    def waiting_lines(self) -> list[Line]:
        return [line for line, jobs in self._lines.items() if jobs]

    # As the dispatcher does

    def give_out_seats(self) -> None:
        if self._is_naive:
            self._give_out_in_order_of_arrival()
            return
        while self.backlog.has_waiting and self.pool.with_free_seat():
            seats = self.scheduler.choose()
            self._look_again()
            if not seats:
                return
            for backend, pick, trial in seats:
                job = self._claim(backend, pick)
                job.trial = trial
                self._send(self._simulated(backend), job)

    def _claim(self, backend: Backend, pick: Pick) -> SimulatedJob:
        """The oldest job of the line; for a trial the oldest that has not failed, of any line."""
        runner = pick.line.runner
        failed = backend.breakers.failed_before(model_of_runner(runner), pick.line.owner)
        job = self._oldest(pick.line, failed)
        passed_over: list[Line] = []
        while job is None:
            passed_over.append(pick.line)
            self.backlog.claimed([pick], [])
            other = self.backlog.pick(runner, passed_over=passed_over)
            if other is None:
                failed = set()
                other = self.backlog.pick(runner)
            assert other is not None
            pick = other._replace(pays_load=pick.pays_load and other.line.owner == pick.line.owner)
            job = self._oldest(pick.line, failed)
        self._lines[pick.line].remove(job)
        job.pick = pick
        self.backlog.claimed([pick], [ROW])
        return job

    def _oldest(self, line: Line, failed: Collection[str]) -> SimulatedJob | None:
        left = (job for job in self._lines[line] if job.evidence.job_id not in failed)
        return min(left, key=lambda job: job.number, default=None)

    def _wait(self, job: SimulatedJob) -> None:
        self._lines[job.line].append(job)
        self.backlog.arrive(job.line, 0, self.time.now, is_ready=True)
        self.give_out_seats()

    def _give_out_in_order_of_arrival(self) -> None:
        for backend in self.pool.with_free_seat():
            while backend.free_seats > 0:
                waiting = [jobs for jobs in self._lines.values() if jobs]
                if not waiting:
                    return
                job = min(waiting, key=lambda jobs: jobs[0].number).popleft()
                self.pool.take(backend, job.runner, job.line.owner)
                self._send(self._simulated(backend), job)

    # As the workers do

    def _send(self, backend: SimulatedBackend, job: SimulatedJob) -> None:
        job.started, job.ended, job.backend = self.time.now, None, backend.name
        self.sent.append(job)
        self.sent_at.append(self.time.now)
        job.call = Call(
            job.runner,
            self.time.now,
            is_streamed=True,
            is_settled=lambda: job.first_byte is not None or not job.has_keep_alive,
            unloads=job.has_keep_alive,
        )
        backend.placement.holds.call_begins(job.call, backend.placement.own(job.runner))

        def granted(is_there: bool) -> None:
            if job.ended is not None:
                # Nobody waits for it any more; Ollama finds that out when its turn comes.
                if is_there:
                    backend.ollama.release(job.runner)
                return
            if not is_there:
                self._end(backend, job)
                return
            if job.error is not None:
                self.time.after(int(job.cost * backend.slowness), lambda: self._fail(backend, job))
                return
            job.first_byte = self.time.now
            backend.own.wants_probe.clear()
            self.pool.answered(backend.own, job.runner)
            if backend.own.wants_probe.is_set():
                self._probe(backend)
                self.time.after(0, self.give_out_seats)
            self.time.after(int(job.cost * backend.slowness), lambda: self._end(backend, job, release=True))

        backend.ollama.request(job.runner, granted)

    def _fail(self, backend: SimulatedBackend, job: SimulatedJob) -> None:
        error, own = job.error, backend.own
        assert error is not None
        self.pool.failed(own, job.runner, error, job.evidence, job.trial, has_spoken=False)
        failure = Failure(error, job.failures, job.crashes, has_caller=False, is_sent=False)
        decision = decide(failure, RetryConfig(), holds_busy=True, chance=lambda: 1.0)
        if isinstance(decision, TryAgain):
            job.failures += decision.failures
            job.crashes += decision.crashes
            self.unfinished += 1
            self.time.after(decision.pause_ms or 0, lambda: self._wait(job))
        self._end(backend, job, release=True)

    def _end(self, backend: SimulatedBackend, job: SimulatedJob, *, release: bool = False) -> None:
        job.ended = self.time.now
        self.unfinished -= 1
        if release:
            backend.ollama.release(job.runner)
            if job.error is None:
                self.pool.spoke(backend.own, job.runner, job.trial)
                self.pool.completed(backend.own, job.runner, job.cost, 1)
        else:
            backend.own.breakers.abandoned(model_of_runner(job.runner), job.trial)
        if job.call is not None:
            backend.placement.holds.call_ends(job.call, self.time.now)
        self.pool.free(backend.own, job.runner)
        if backend.placement.holds.hold is not None:
            self._probe(backend)
        if not self._is_naive:
            self._settle(job, job.ended, is_typical=release)
        # The caller hears of the outcome when it is stored, which the dispatcher does not wait for.
        self.give_out_seats()
        self.time.after(1, job.on_end)

    def _settle(self, job: SimulatedJob, ended: int, *, is_typical: bool) -> None:
        """A load is no part of what a job has used: its owner pays for it where nobody else waited for it."""
        assert job.started is not None
        assert job.pick is not None
        load_ms = (job.first_byte or job.started) - job.started
        self.backlog.end(
            job.line,
            job.pick.charged_ms,
            max(1, ended - job.started - load_ms),
            is_typical=is_typical,
            load_ms=load_ms if job.pick.pays_load else 0,
        )

    # As the pool does

    def _use_pool(self) -> None:
        members = [backend.own for backend in self.backends]
        self.pool = Pool(members, Config(), self.clock, asyncio.Event())
        self.scheduler = Scheduler(self.backlog, self.pool, self.clock)

    def _simulated(self, own: Backend) -> SimulatedBackend:
        return next(backend for backend in self.backends if backend.own is own)

    def _probe(self, backend: SimulatedBackend) -> None:
        self.time.after(PROBE_MS, lambda: self._see(backend))

    def _see(self, backend: SimulatedBackend) -> None:
        backend.placement.listed(map(Listed, backend.ollama.listed), self.time.now)
        self.give_out_seats()

    def _probe_regularly(self, backend: SimulatedBackend) -> None:
        placement = backend.placement
        is_loading = any(placement.is_loading(runner) for runner in placement.in_flight)
        if is_loading or self.time.now >= backend.probe_due_at:
            backend.probe_due_at = self.time.now + PROBE_INTERVAL_MS
            self._probe(backend)
        self.time.after(LOADING_PROBE_MS, lambda: self._probe_regularly(backend))

    def _poll(self) -> None:
        self.give_out_seats()
        self.time.after(POLL_MS, self._poll)

    def _look_again(self) -> None:
        due = self.scheduler.next_look()
        if due is not None and due not in self._looks:
            self._looks.add(due)
            self.time.at(due, lambda: self._look(due))

    def _look(self, due: int) -> None:
        self._looks.discard(due)
        self.give_out_seats()


def assert_safe(service: SimulatedService) -> None:
    """No job of a runner is with Ollama together with one that it could wait for."""
    for backend in service.backends:
        busy = {backend.ollama.own(runner) for runner in backend.placement.in_flight if not is_remote(runner)}
        hold = backend.placement.holds.hold
        if hold is not None:
            # It waits, or is loaded beside them: nothing more is sent to them.
            busy.discard(backend.ollama.own(hold.asked))
        models = {model_of_runner(runner) for runner in busy}
        assert len(models) == len(busy)
        assert backend.ollama.fits(models)
        assert backend.ollama.hazards == []
