"""The jobs and the backends of the simulation in which time is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from service.backend.backend import Backend
from service.backend.breakers import NO_TRIAL, Evidence, Trial
from service.backend.calls import Call
from service.backend.placement import Placement
from service.clock import Clock
from service.errors import BackendError
from service.job import Line
from service.queue.backlog import Pick
from tests.support.ollama_in_time import SimulatedOllama, Timeline


@dataclass(slots=True, eq=False)
class SimulatedJob:
    line: Line
    cost: int
    arrived: int
    number: int
    error: BackendError | None = None
    """How each of its attempts ends, if not well."""
    failures: int = 0
    crashes: int = 0
    has_keep_alive: bool = False
    pick: Pick | None = None
    """Its last turn."""
    trial: Trial = NO_TRIAL
    call: Call | None = None
    started: int | None = None
    """When it was sent to a backend, the last time."""
    first_byte: int | None = None
    ended: int | None = None
    backend: str = ""
    on_end: Callable[[], object] = lambda: None

    @property
    def runner(self) -> str:
        return self.line.runner

    @property
    def evidence(self) -> Evidence:
        return Evidence(str(self.number), self.line.owner, self.number)

    @property
    def waited(self) -> int:
        assert self.first_byte is not None
        return self.first_byte - self.arrived


class SimulatedClock(Clock):
    """Tells the time of a timeline."""

    def __init__(self, time: Timeline) -> None:
        super().__init__()
        self._time = time

    def now_ms(self) -> int:
        return self._time.now


@dataclass(eq=False)
class SimulatedBackend:
    """A backend of the service's own, and what answers there."""

    own: Backend
    ollama: SimulatedOllama
    slowness: float = 1.0
    probe_due_at: int = 0

    @property
    def name(self) -> str:
        return self.own.name

    @property
    def placement(self) -> Placement:
        return self.own.placement

    @property
    def in_flight(self) -> int:
        return self.own.in_flight

    @property
    def is_available(self) -> bool:
        return self.own.is_answering

    @is_available.setter
    def is_available(self, value: bool) -> None:
        self.own.is_answering = value
