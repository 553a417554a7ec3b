"""What is measured as it happens, to be read by whoever shows it: plain numbers, cheap to add to, bounded in size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

_MOST_MODELS = 100
OTHER = "other"
"""Under this name goes what would be one model too many."""

_WAITS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400)
_RATES = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500)
COMMIT_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_HTTP_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30, 120)


class Histogram:
    """How often a value fell between two bounds, both in the same unit."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class ModelMetrics:
    """One model's jobs: seconds of waiting and to the first token, tokens a second, and how they ended."""

    __slots__ = ("ended", "first_token_seconds", "tokens_per_second", "wait_seconds")

    def __init__(self) -> None:
        self.wait_seconds = Histogram(_WAITS)
        self.first_token_seconds = Histogram(_WAITS)
        self.tokens_per_second = Histogram(_RATES)
        self.ended: dict[str, int] = {}


class RouteMetrics:
    """One route and method: answers by status, and their seconds."""

    __slots__ = ("seconds", "statuses")

    def __init__(self) -> None:
        self.seconds = Histogram(_HTTP_BOUNDS)
        self.statuses: dict[int, int] = {}


class Metrics:
    """Everything that this process has measured since its start."""

    def __init__(self) -> None:
        self.models: dict[str, ModelMetrics] = {}
        self.routes: dict[tuple[str, str], RouteMetrics] = {}
        self.commit_seconds = Histogram(COMMIT_BOUNDS)
        """The database's own, once it is open."""
        self.websockets = 0

    def of_model(self, model: str) -> ModelMetrics:
        """The metrics of a model; the names are the callers', so that only so many are told apart."""
        found = self.models.get(model)
        if found is None:
            name = model if len(self.models) < _MOST_MODELS else OTHER
            found = self.models.setdefault(name, ModelMetrics())
        return found

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. ``route`` is the pattern, never the path."""
        metrics = self.routes.get((route, method))
        if metrics is None:
            metrics = self.routes[route, method] = RouteMetrics()
        metrics.statuses[status] = metrics.statuses.get(status, 0) + 1
        metrics.seconds.observe(seconds)
