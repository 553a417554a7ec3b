"""Ollama's scheduler (wire contract 4) in simulated time. Times are milliseconds."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from service.backend.placement import is_remote
from service.job import model_of_runner

Fits = Callable[[Collection[str]], bool]
"""Whether these models can be loaded at once."""


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
    """Who was sent to a runner for whose end another waits: what must never be (4.3)."""

    def __post_init__(self) -> None:
        self._references: dict[str, int] = {}
        self._pending: deque[tuple[str, str, Callable[[bool], None]]] = deque()
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
        if is_remote(runner):
            granted(True)
        elif self.loaded.get(model_of_runner(runner)) == runner:
            if self._victim == runner:
                self.hazards.append((asked, runner))
            self._use(runner, granted)
        else:
            self._pending.append((runner, asked, granted))
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
            runner, _, granted = self._pending[0]
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

    def _end_load(self) -> None:
        self._is_loading = False
        runner, asked, granted = self._pending.popleft()
        if runner in self.failing_loads:
            self.failing_loads.discard(runner)
            granted(False)
        else:
            self.loads += 1
            self.loaded[model_of_runner(runner)] = runner
            self._loaded_as[model_of_runner(runner)] = asked
            self._use(runner, granted)
        self._go_on()
