"""The books: one log row for each request of a route that makes jobs, and how a limited key stands on every reply."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

from aiohttp import web

from service.api.access.caller import Caller
from service.clock import Clock
from service.job import Job, model_key
from service.key import Key
from service.keys.rate_limits import Allowances
from service.request_log import Usage
from service.store.request_log import LogRow

JOB_PATHS = frozenset(
    {
        "/api/v1/prompt",
        "/generate",
        "/api/generate",
        "/api/chat",
        "/api/embed",
        "/api/embeddings",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
    }
)
LEFT = 499
"""What is written down of a caller that has closed the connection (nginx's word for it)."""


class Entry:
    """What a handler finds out about the request that is being written down."""

    __slots__ = ("at", "endpoint", "give_back", "job_id", "model")

    def __init__(self, endpoint: str, at: int) -> None:
        self.endpoint = endpoint
        self.at = at
        """When it came (milliseconds since the epoch)."""
        self.give_back: Callable[[], None] | None = None
        self.job_id: str | None = None
        self.model: str | None = None


ENTRY = web.RequestKey("entry", Entry)


class Books:
    """Opens an entry for each request that may make a job, and writes it down when it is answered."""

    def __init__(self, usage: Usage, clock: Clock) -> None:
        self.usage = usage
        self._clock = clock

    def begin(self, request: web.Request, route: str) -> Entry | None:
        """The entry of a request that may make a job; None for any other."""
        if route not in JOB_PATHS or request.method != "POST":
            return None
        entry = request[ENTRY] = Entry(route, self._clock.now_ms())
        return entry

    def end(self, entry: Entry, caller: Caller | None, status: int, begun: float) -> None:
        """Write down how ``caller`` was answered. ``begun`` is when, by ``perf_counter``."""
        if entry.give_back is not None and entry.job_id is None:
            entry.give_back()
        # Whoever could not say who it is must not be able to fill the disk; /metrics counts it.
        if caller is None:
            return
        # From one tuple: by its fields Python takes twice as long. What becomes of the job is added when it ends.
        self.usage.record(LogRow._make((
            entry.at, caller.key_id, caller.owner, entry.endpoint, "POST", status,
            model_key(entry.model) if entry.model is not None else None, entry.job_id, None, None, None,
            round((perf_counter() - begun) * 1000), None,
        )))  # fmt: skip


BOOKS = web.AppKey("books", Books)


def note_model(request: web.Request, model: str) -> None:
    """The request, which may make a job, asks for this model."""
    request[ENTRY].model = model


def note_job(request: web.Request, job: Job) -> None:
    """The request made this job, or found it."""
    request[ENTRY].job_id = job.id
    request.app[BOOKS].usage.expect(job)


def note_count(request: web.Request, key: Key, allowances: Allowances) -> None:
    """Count the request; it does not count in the end when it makes no job. Raises LimitReachedError."""
    second = allowances.take(key)
    if second is not None:
        request[ENTRY].give_back = partial(allowances.give_back, key, second)
