"""Backends in simulated time: a model of Ollama's scheduler (wire contract 4), and the dispatcher's rounds over it.

Times are milliseconds. Jobs of a runner go in the order of their arrival; whose they are is another file's matter.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from service.backend.placement import Placement, is_remote
from service.job import model_of_runner, runner_key

PROBE_MS = 2
"""Between the question ``/api/ps`` and its answer, which is of the moment when it comes."""
PROBE_INTERVAL_MS = 10_000
LOADING_PROBE_MS = 500
POLL_MS = 1_000

Fits = Callable[[Collection[str]], bool]

A, B, C, D = (runner_key(name) for name in "abcd")
A_LONG = runner_key("a", {"num_ctx": 32_768})
CLOUD = runner_key("big:cloud")
SWAP_WAIT = 30_000


class Timeline:
    """What happens when, in the order of time."""

    def __init__(self) -> None:
        self.now = 0
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._number = 0

    def at(self, time: int, action: Callable[[], object]) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, action))

    def after(self, delay: int, action: Callable[[], object]) -> None:
        self.at(self.now + delay, action)

    @property
    def next_at(self) -> int:
        return self._events[0][0]

    def step(self) -> None:
        self.now, _, action = heapq.heappop(self._events)
        action()


def one_at_a_time(models: Collection[str]) -> bool:
    return len(models) <= 1


def any_two(models: Collection[str]) -> bool:
    return len(models) <= 2


@dataclass
class SimulatedOllama:
    """Runners and their references; one loop that loads and evicts, and a fast path around it."""

    time: Timeline
    fits: Fits = one_at_a_time
    load_ms: int = 1_000
    failing_loads: set[str] = field(default_factory=set)
    """Runners whose loads fail, each once."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Of models that are other names of the same weights, the one by which their runner goes here."""

    loaded: dict[str, str] = field(default_factory=dict)
    """By model, the runner; the least recently loaded first."""
    loads: int = 0
    hazards: list[tuple[str, str]] = field(default_factory=list)
    """Who waited for which busy runner to drain: what must never be (4.3)."""

    def __post_init__(self) -> None:
        self._references: dict[str, int] = {}
        self._pending: deque[tuple[str, Callable[[bool], None]]] = deque()
        self._is_loading = False
        self._victim: str | None = None
        self._loaded_as: dict[str, str] = {}

    @property
    def listed(self) -> set[str]:
        """What ``/api/ps`` says: of several names the one that was loaded."""
        return {self._loaded_as.get(model, model) for model in self.loaded}

    def own(self, runner: str) -> str:
        """The runner that serves this one's jobs."""
        model, space, options = runner.partition(" ")
        return f"{self.weights.get(model, model)}{space}{options}"

    def request(self, runner: str, granted: Callable[[bool], None]) -> None:
        """``granted`` is called when the runner is there, with False when its load failed."""
        asked, runner = model_of_runner(runner), self.own(runner)
        if self.loaded.get(model_of_runner(runner)) != runner:
            self._loaded_as[model_of_runner(runner)] = asked
        if is_remote(runner):
            granted(True)
        elif self.loaded.get(model_of_runner(runner)) == runner:
            self._use(runner, granted)
        else:
            self._pending.append((runner, granted))
            self._go_on()

    def release(self, runner: str) -> None:
        if is_remote(runner):
            return
        runner = self.own(runner)
        self._references[runner] -= 1
        if not self._references[runner] and self._victim == runner:
            self._victim = None
            del self.loaded[model_of_runner(runner)]
            self._go_on()

    def evict(self, model: str) -> None:
        """Its time is up, or somebody else's program needed the room. What is in use stays."""
        runner = self.loaded.get(model)
        if runner is not None and not self._references.get(runner):
            del self.loaded[model]

    def _use(self, runner: str, granted: Callable[[bool], None]) -> None:
        self._references[runner] = self._references.get(runner, 0) + 1
        granted(True)

    def _go_on(self) -> None:
        while self._pending and not self._is_loading and self._victim is None:
            runner, granted = self._pending[0]
            model = model_of_runner(runner)
            if self.loaded.get(model) == runner:
                self._pending.popleft()
                self._use(runner, granted)
            elif model not in self.loaded and self.fits({*self.loaded, model}):
                self._is_loading = True
                self.time.after(self.load_ms, self._end_load)
            else:
                self._make_room(runner, model)

    def _make_room(self, runner: str, model: str) -> None:
        candidates = [self.loaded[model]] if model in self.loaded else list(self.loaded.values())
        idle = [one for one in candidates if not self._references.get(one)]
        if idle:
            del self.loaded[model_of_runner(idle[0])]
        else:
            self._victim = candidates[0]
            self.hazards.append((runner, self._victim))

    def _end_load(self) -> None:
        self._is_loading = False
        runner, granted = self._pending.popleft()
        if runner in self.failing_loads:
            self.failing_loads.discard(runner)
            granted(False)
        else:
            self.loads += 1
            self.loaded[model_of_runner(runner)] = runner
            self._use(runner, granted)
        self._go_on()


@dataclass(slots=True, eq=False)
class SimulatedJob:
    runner: str
    cost: int
    arrived: int
    number: int
    started: int | None = None
    """When it was sent to a backend."""
    first_byte: int | None = None
    ended: int | None = None
    backend: str = ""
    on_end: Callable[[], object] = lambda: None

    @property
    def waited(self) -> int:
        assert self.first_byte is not None
        return self.first_byte - self.arrived


@dataclass(eq=False)
class SimulatedBackend:
    name: str
    ollama: SimulatedOllama
    placement: Placement
    seats: int = 4
    slowness: float = 1.0
    is_available: bool = True
    idle_since: int = 0
    probe_due_at: int = 0

    @property
    def in_flight(self) -> int:
        return sum(self.placement.in_flight.values())


class SimulatedService:
    """The dispatcher's rounds, as :class:`service.dispatcher.Dispatcher` makes them, and the pool's probes."""

    def __init__(self, *, max_swap_wait_ms: int = 30_000, is_naive: bool = False) -> None:
        self.time = Timeline()
        self.backends: list[SimulatedBackend] = []
        self.waiting: dict[str, deque[SimulatedJob]] = {}
        self.jobs: list[SimulatedJob] = []
        self.on_event: Callable[[], object] = lambda: None
        self.unfinished = 0
        self._max_swap_wait_ms = max_swap_wait_ms
        self._is_naive = is_naive
        self._looks: set[int] = set()
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
    ) -> SimulatedBackend:
        """``loaded`` are runners that it has before we come; ``slowness`` multiplies what a job takes."""
        ollama = SimulatedOllama(self.time, fits, load_ms)
        ollama.loaded = {model_of_runner(runner): runner for runner in loaded}
        backend = SimulatedBackend(name, ollama, Placement(self._max_swap_wait_ms), seats, slowness)
        self.backends.append(backend)
        self._see(backend)
        self._probe_regularly(backend)
        return backend

    def submit(self, runner: str, cost: int, on_end: Callable[[], object] = lambda: None) -> SimulatedJob:
        job = SimulatedJob(runner, cost, self.time.now, len(self.jobs), on_end=on_end)
        self.jobs.append(job)
        self.unfinished += 1
        self.waiting.setdefault(runner, deque()).append(job)
        self.give_out_seats()
        return job

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

    # As the dispatcher does

    def give_out_seats(self) -> None:
        waiting = {runner: jobs[0].arrived for runner, jobs in self.waiting.items()}
        for may_load, may_evict in ((False, False), (True, False), (True, True)):
            for backend in self._with_free_seat():
                while backend.in_flight < backend.seats:
                    runner = self._choice(backend, waiting, may_load=may_load, may_evict=may_evict)
                    if runner is None:
                        break
                    self._send(backend, self.waiting[runner].popleft())
                    if not self.waiting[runner]:
                        del self.waiting[runner]
                        del waiting[runner]
        self._look_again(waiting)

    def _choice(
        self, backend: SimulatedBackend, waiting: dict[str, int], *, may_load: bool, may_evict: bool
    ) -> str | None:
        if self._is_naive:
            return min(waiting, key=lambda runner: self.waiting[runner][0].number, default=None)
        return backend.placement.choose(
            waiting, self.time.now, elsewhere=self._elsewhere(backend, waiting), may_load=may_load, may_evict=may_evict
        )

    def _with_free_seat(self) -> list[SimulatedBackend]:
        free = [backend for backend in self.backends if backend.is_available and backend.in_flight < backend.seats]
        return sorted(free, key=lambda backend: (backend.in_flight > 0, backend.idle_since))

    def _elsewhere(self, backend: SimulatedBackend, runners: Iterable[str]) -> set[str]:
        others = [other for other in self.backends if other is not backend and other.is_available]
        return {runner for runner in runners if any(other.placement.has(runner) for other in others)}

    # As the workers do

    def _send(self, backend: SimulatedBackend, job: SimulatedJob) -> None:
        job.started, job.backend = self.time.now, backend.name
        backend.placement.sent(job.runner, self.time.now)

        def granted(is_there: bool) -> None:
            if not is_there:
                self._end(backend, job)
                return
            job.first_byte = self.time.now
            if backend.placement.answered(job.runner, self.time.now):
                self._probe(backend)
                self.time.after(0, self.give_out_seats)
            self.time.after(int(job.cost * backend.slowness), lambda: self._end(backend, job, release=True))

        backend.ollama.request(job.runner, granted)

    def _end(self, backend: SimulatedBackend, job: SimulatedJob, *, release: bool = False) -> None:
        job.ended = self.time.now
        self.unfinished -= 1
        if release:
            backend.ollama.release(job.runner)
        backend.placement.ended(job.runner, self.time.now)
        if not backend.in_flight:
            backend.idle_since = self.time.now
        # The caller hears of the outcome when it is stored, which the dispatcher does not wait for.
        self.give_out_seats()
        self.time.after(1, job.on_end)

    # As the pool does

    def _probe(self, backend: SimulatedBackend) -> None:
        self.time.after(PROBE_MS, lambda: self._see(backend))

    def _see(self, backend: SimulatedBackend) -> None:
        backend.placement.listed(backend.ollama.listed, self.time.now)
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

    def _look_again(self, waiting: dict[str, int]) -> None:
        times = [backend.placement.next_look(waiting, self.time.now) for backend in self.backends]
        due = min((time for time in times if time is not None), default=None)
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
        models = {model_of_runner(runner) for runner in busy}
        assert len(models) == len(busy)
        assert backend.ollama.fits(models)
        assert backend.ollama.hazards == []
