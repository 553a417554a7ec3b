"""What the core hands out and takes in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from service.errors import BackendError
from service.job import Claimed, Job, Line
from service.outputs import Output
from service.relay import Head, Relay
from service.store.database import Answers, Written
from service.store.jobs import numbered


@dataclass(frozen=True, slots=True)
class Limits:
    """What the core refuses: jobs and bytes that wait, bytes of one output, and what a failed attempt may do again."""

    max_queued: int
    max_queued_bytes: int
    max_output_bytes: int
    max_queued_per_owner: int = 0
    """0: none of its own."""


class Retry(NamedTuple):
    """A failed attempt is to be repeated at ``not_before`` (milliseconds since the epoch)."""

    not_before: int | None
    error: BackendError
    failures: int = 0
    crashes: int = 0


class Refusal(NamedTuple):
    """What a backend says in place of an answer: a reply of status 400 or more, or one that says that it is cut."""

    head: Head
    body: bytes


class Running:
    """A job that this process is working on."""

    __slots__ = ("charged_ms", "is_cancelled", "job", "output", "refusal", "relay", "request", "stop", "stored")

    def __init__(self, claimed: Claimed, output: Output, charged_ms: float, relay: Relay | None = None) -> None:
        self.job = claimed.job
        self.request = claimed.request
        self.output = output
        self.charged_ms = charged_ms
        self.is_cancelled = False
        self.relay = relay
        """Where a waiting caller reads the reply."""
        self.refusal: Refusal | None = None
        """The backend's own word of the failure, where it gave one."""
        self.stored: asyncio.Future[None] | None = None
        """Set where the attempt began before its row was on disk: done when it is, and failed when it cannot be."""
        self.stop: Callable[[], object] | None = None
        """Set by the worker that has it: ends the attempt and closes the connection to the backend."""


class Pick(NamedTuple):
    """A turn that was given to a line, and what it was charged for it in backend milliseconds."""

    line: Line
    charged_ms: float


class View(NamedTuple):
    """A job as its caller may see it; ``position`` counts from 1 and is None unless the job is queued and ready."""

    job: Job
    position: int | None
    is_exact: bool = True
    estimated_start_seconds: float | None = None
    """From now; None also while no backend serves the model."""

    def numbered(self, answers: Answers) -> View:
        """The same when the job is stored, with the number that the database may have given it."""
        return self if self.job.seq else self._replace(job=numbered(self.job, answers))


class Entered:
    """A job on its way to the disk. Nobody may be told of it before it is there."""

    __slots__ = ("view", "written")

    def __init__(self, view: View, written: Written) -> None:
        self.view = view
        """As its caller is to see it; where the database gives the numbers, without one until it is stored."""
        self.written = written
        """Done when it is on disk; to be waited for raises what has become of it otherwise."""

    async def stored(self) -> View:
        """The job, once it is on disk."""
        await self.written
        return self.view


class Page(NamedTuple):
    """A page of a list; ``total`` is exact unless ``is_capped``."""

    jobs: list[Job]
    total: int
    is_capped: bool
