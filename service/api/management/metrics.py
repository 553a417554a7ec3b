"""``/metrics`` for Prometheus, read from all parts of the service at each request. The values of labels are bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from aiohttp import web
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from corral.breaker import State
from service.api.access.caller import CALLER
from service.api.context import CLOCK, CONFIG, JOBS, METRICS, POOL
from service.api.http.raw_replies import whole_reply
from service.backend.pool import Pool
from service.clock import Clock
from service.job import Priority, Status, model_of_runner
from service.jobs import Jobs
from service.metrics.values import OTHER, Histogram, Metrics


class _Service(Collector):
    """Reads the figures at one moment."""

    def __init__(self, jobs: Jobs, pool: Pool, metrics: Metrics, clock: Clock, oldest: dict[str, int]) -> None:
        self._jobs = jobs
        self._pool = pool
        self._metrics = metrics
        self._clock = clock
        self._oldest = oldest

    def collect(self) -> Iterator[Metric]:
        yield from self._queue()
        yield from self._backends()
        yield from self._models()
        yield from self._http()
        commits = HistogramMetricFamily("corral_database_commit_seconds", "Time of one commit of the database")
        _add(commits, [], self._metrics.commit_seconds)
        yield commits

    def _queue(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("corral_jobs", "Jobs that are kept, by status", labels=["status"])
        for status in Status:
            jobs.add_metric([str(status)], max(0, self._jobs.backlog.gauges.total(status)))
        yield jobs
        depth = GaugeMetricFamily(
            "corral_queue_depth", "Jobs that could start now, by model and priority", labels=["model", "priority"]
        )
        waiting: Counter[tuple[str, str]] = Counter()
        for runner, owners in self._jobs.backlog.gauges.waiting.items():
            for priorities in owners.values():
                for priority, count in priorities.items():
                    waiting[self._model(runner), Priority(priority).word] += count
        for (model, word), count in waiting.items():
            depth.add_metric([model, word], count)
        yield depth
        age = GaugeMetricFamily(
            "corral_queue_oldest_seconds", "How long the oldest job that could start has waited", labels=["model"]
        )
        ages: dict[str, float] = {}
        for runner, since in self._oldest.items():
            model = self._model(runner)
            ages[model] = max(ages.get(model, 0.0), (self._clock.now_ms() - since) / 1000)
        for model, seconds in ages.items():
            age.add_metric([model], seconds)
        yield age
        yield GaugeMetricFamily(
            "corral_jobs_running", "Jobs that this process works on", value=len(self._jobs.ledger.running)
        )
        yield GaugeMetricFamily("corral_websockets", "Open websockets", value=self._metrics.websockets)
        trouble = self._jobs.ledger.store_trouble is not None
        yield GaugeMetricFamily("corral_database_up", "Whether the last write was stored", value=0 if trouble else 1)

    def _backends(self) -> Iterator[Metric]:
        label = ["backend"]
        up = GaugeMetricFamily("corral_backend_up", "Whether the backend answers", labels=label)
        seats = GaugeMetricFamily("corral_backend_seats", "Jobs that may run there at once", labels=label)
        used = GaugeMetricFamily("corral_backend_seats_used", "Jobs that run there", labels=label)
        loads = CounterMetricFamily(
            "corral_backend_swaps", "Loads of a model that the service has caused", labels=label
        )
        breaker = GaugeMetricFamily(
            "corral_backend_breaker", "1 for the state that the breaker is in", labels=["backend", "state"]
        )
        versions = InfoMetricFamily("corral_backend", "The backends' versions", labels=label)
        for backend in self._pool:
            name = [backend.name]
            up.add_metric(name, backend.is_answering)
            seats.add_metric(name, backend.config.concurrency)
            used.add_metric(name, backend.in_flight)
            loads.add_metric(name, backend.placement.swaps)
            for state in State:
                breaker.add_metric([backend.name, str(state)], backend.breakers.server.state is state)
            if backend.version is not None:
                versions.add_metric(name, {"version": backend.version})
        yield from (up, seats, used, loads, breaker, versions)

    def _models(self) -> Iterator[Metric]:
        label = ["model"]
        ended = CounterMetricFamily("corral_jobs_ended", "Jobs that became final", labels=["model", "status"])
        waits = HistogramMetricFamily("corral_wait_seconds", "From submission to the first attempt", labels=label)
        first = HistogramMetricFamily("corral_first_token_seconds", "From submission to the first token", labels=label)
        speed = HistogramMetricFamily("corral_tokens_per_second", "Generated tokens a second, by job", labels=label)
        for model, metrics in self._metrics.models.items():
            for status, count in metrics.ended.items():
                ended.add_metric([model, status], count)
            _add(waits, [model], metrics.wait_seconds)
            _add(first, [model], metrics.first_token_seconds)
            _add(speed, [model], metrics.tokens_per_second)
        yield from (ended, waits, first, speed)

    def _http(self) -> Iterator[Metric]:
        answers = CounterMetricFamily("corral_http_requests", "Answered requests", labels=["route", "method", "status"])
        seconds = HistogramMetricFamily("corral_http_seconds", "Time to answer", labels=["route", "method"])
        for (route, method), metrics in self._metrics.routes.items():
            for status, count in metrics.statuses.items():
                answers.add_metric([route, method, str(status)], count)
            _add(seconds, [route, method], metrics.seconds)
        yield from (answers, seconds)

    def _model(self, runner: str) -> str:
        """The label of a model; callers can invent any number of names, so those that no backend knows share one."""
        model = model_of_runner(runner)
        return model if self._pool.catalogue.knows(model) else OTHER


class _Unlabelled(Collector):
    """Of other figures what has no labels: none tells of models, backends, routes or programs."""

    def __init__(self, whole: CollectorRegistry) -> None:
        self._whole = whole

    def collect(self) -> Iterator[Metric]:
        for metric in self._whole.collect():
            metric.samples = [sample for sample in metric.samples if not sample.labels]
            if metric.type == "histogram":
                # Its buckets have labels. What is left is all that a summary has to have.
                metric.type = "summary"
            if metric.samples:
                yield metric


async def show_metrics(request: web.Request) -> web.StreamResponse:
    """The metrics as they are now, in the format that the caller accepts. Where keys are required, one that shows none
    gets those without labels.
    """
    app = request.app
    registry = CollectorRegistry(auto_describe=False)
    oldest = await app[JOBS].views.oldest()
    registry.register(_Service(app[JOBS], app[POOL], app[METRICS], app[CLOCK], oldest))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    if not (request[CALLER].is_known or app[CONFIG].metrics.public):
        whole, registry = registry, CollectorRegistry(auto_describe=False)
        registry.register(_Unlabelled(whole))
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    headers = (("Content-Type", content_type), ("Cache-Control", "no-store"))
    return whole_reply(request, 200, headers, encode(registry))


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
    family.add_metric(labels, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.total)
