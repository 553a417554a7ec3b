"""The request log as handlers write to it: one row for each request to a route that makes jobs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

from aiohttp import web

from service.api.access.caller import Caller
from service.clock import Clock
from service.endpoints import JOB_PATHS
from service.job import Job, model_key
from service.key import Key
from service.keys.rate_limits import RateLimits
from service.request_log import RequestLog
from service.store.request_log import LogRow

LEFT = 499
"""The status in the log when the caller has closed the connection; nginx logs the same."""


class LoggedRequest:
    """What becomes known of a request while it is handled, for its row in the log."""

    __slots__ = ("at", "endpoint", "give_back", "job_id", "method", "model")

    def __init__(self, endpoint: str, method: str, at: int) -> None:
        self.endpoint = endpoint
        self.method = method
        self.at = at
        """When it came (milliseconds since the epoch)."""
        self.give_back: Callable[[], None] | None = None
        self.job_id: str | None = None
        self.model: str | None = None


LOGGED_REQUEST = web.RequestKey("logged_request", LoggedRequest)


class RequestLogging:
    """Begins a row for each request that may make a job, and writes it when the request is answered."""

    def __init__(self, log: RequestLog, clock: Clock) -> None:
        self.log = log
        self._clock = clock

    def begin(self, request: web.Request, route: str) -> LoggedRequest | None:
        """Begin the row of a request that may make a job; None for any other request."""
        if route not in JOB_PATHS or request.method != "POST":
            return None
        return self.begin_row(request, route)

    def begin_row(self, request: web.Request, endpoint: str) -> LoggedRequest:
        """Begin a row of whatever request; to be ended by whoever begins it."""
        logged = request[LOGGED_REQUEST] = LoggedRequest(endpoint, request.method, self._clock.now_ms())
        return logged

    def end(self, logged: LoggedRequest, caller: Caller | None, status: int, begun: float) -> None:
        """Write down how ``caller`` was answered. ``begun`` is when its request came, by ``perf_counter``."""
        if logged.give_back is not None and logged.job_id is None:
            logged.give_back()
        # A caller that was refused for its key must not be able to fill the disk; /metrics counts its requests.
        if caller is None:
            return
        self.log.record(
            LogRow(
                at=logged.at,
                key_id=caller.key_id,
                owner=caller.owner,
                endpoint=logged.endpoint,
                method=logged.method,
                status_code=status,
                model=model_key(logged.model) if logged.model is not None else None,
                job_id=logged.job_id,
                response_ms=round((perf_counter() - begun) * 1000),
            )
        )


REQUEST_LOGGING = web.AppKey("request_logging", RequestLogging)


def note_model(request: web.Request, model: str) -> None:
    """The request, which may make a job, asks for this model."""
    request[LOGGED_REQUEST].model = model


def note_job(request: web.Request, job: Job) -> None:
    """The request made this job, or found it."""
    request[LOGGED_REQUEST].job_id = job.id
    request.app[REQUEST_LOGGING].log.expect(job)


def note_count(request: web.Request, key: Key, rate_limits: RateLimits) -> None:
    """Count the request against the key's limit; it is given back when no job comes of it. Raises LimitReachedError."""
    second = rate_limits.take(key)
    if second is not None:
        request[LOGGED_REQUEST].give_back = partial(rate_limits.give_back, key, second)


def keep_count(request: web.Request) -> None:
    """The request counts against its key's limit, although no job comes of it."""
    request[LOGGED_REQUEST].give_back = None
