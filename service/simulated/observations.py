"""What the simulated Ollama saw and did: read by tests, and over `GET /simulated/state` by other processes."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_LONGEST_KEPT_BODY = 65_536


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request for work as it arrived; `order` counts from 1. Of a body only the first 64 KiB are kept."""

    order: int
    endpoint: str
    model: str
    prompt: str
    body: bytes
    headers: Mapping[str, str]


class Observations:
    """Counts, orders and peaks. `until` waits for any of them without polling."""

    def __init__(self, remembered_requests: int) -> None:
        self.requests: Counter[str] = Counter()  # by endpoint
        self.statuses: Counter[int] = Counter()  # of replies to requests for work
        self.loads: Counter[str] = Counter()  # finished loads by model
        self.load_order: deque[str] = deque(maxlen=remembered_requests)
        self.unloads: Counter[str] = Counter()
        self.aborted_loads = 0
        self.loading: str | None = None
        self.pending_loads = 0  # requests in the scheduler's buffer
        self.in_flight = 0  # requests for work that have no end yet
        self.peak_in_flight = 0
        self.running: Counter[str] = Counter()  # in a seat, by model
        self.peak_running: Counter[str] = Counter()
        self.stalled = 0  # replies held back by a fault
        self.answers = 0  # replies that were whole
        self.closed_connections = 0  # clients that left before their reply was whole
        self.seen: deque[SeenRequest] = deque(maxlen=remembered_requests)
        self._order = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def prompts(self) -> list[str]:
        """The prompts of the remembered requests, in the order of their arrival."""
        return [seen.prompt for seen in self.seen]

    def arrived(self, endpoint: str, model: str, prompt: str, body: bytes, headers: Mapping[str, str]) -> None:
        self._order += 1
        self.seen.append(SeenRequest(self._order, endpoint, model, prompt, body[:_LONGEST_KEPT_BODY], headers))
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self.changed()

    def left(self, status: int, *, is_whole: bool) -> None:
        """The end of a request for work; `status` 0: it was given no reply."""
        self.in_flight -= 1
        if status:
            self.statuses[status] += 1
        if is_whole and status == 200:
            self.answers += 1
        self.changed()

    def seated(self, model: str) -> None:
        self.running[model] += 1
        self.peak_running[model] = max(self.peak_running[model], self.running[model])
        self.changed()

    def unseated(self, model: str) -> None:
        self.running[model] -= 1
        self.changed()

    def changed(self) -> None:
        """To be called after every change of a field, so that those who wait look again."""
        if self._waiters:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    async def until(self, is_true: Callable[[Observations], bool], *, timeout_seconds: float = 60.0) -> None:
        """Wait until what is observed makes `is_true` true; raises TimeoutError when it does not come to that."""
        async with asyncio.timeout(timeout_seconds):
            while not is_true(self):
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.add(waiter)
                await waiter

    def summary(self) -> dict[str, Any]:
        return {
            "requests": dict(self.requests),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "loads": dict(self.loads),
            "load_count": self.loads.total(),
            "load_order": list(self.load_order),
            "unloads": dict(self.unloads),
            "aborted_loads": self.aborted_loads,
            "loading": self.loading,
            "pending_loads": self.pending_loads,
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "running": {model: count for model, count in self.running.items() if count},
            "peak_running": dict(self.peak_running),
            "stalled": self.stalled,
            "answers": self.answers,
            "closed_connections": self.closed_connections,
            "prompts": [
                {"order": seen.order, "endpoint": seen.endpoint, "model": seen.model, "prompt": seen.prompt}
                for seen in self.seen
            ],
        }
