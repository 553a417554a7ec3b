"""What the core hands out and takes in."""

from __future__ import annotations

from typing import NamedTuple

from service.errors import BackendError, CallCancelledError, CallExpiredError, CallFailedError, UnauthenticatedError
from service.job import Job, Status
from service.key import KEY_REVOKED
from service.live.relay import Relay
from service.store.database import Answers, Written
from service.store.jobs import numbered


class Retry(NamedTuple):
    """A failed attempt is to be repeated at ``not_before`` (milliseconds since the epoch)."""

    not_before: int | None
    error: BackendError
    failures: int = 0
    crashes: int = 0


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

    written: Written
    """Set when the write has begun; done when the job is on disk. Awaiting it raises what became of the write."""

    def __init__(self, view: View) -> None:
        self.view = view
        """As its caller is to see it; where the database gives the numbers, without one until it is stored."""

    async def stored(self) -> View:
        """The job, once it is on disk."""
        await self.written
        return self.view


class Page(NamedTuple):
    """A page of a list; ``total`` is exact unless ``is_capped``."""

    jobs: list[Job]
    total: int
    is_capped: bool
    after: str | None = None
    """The id of the job behind which the list goes on; None: this is its end."""
    is_complete: bool = True
    """Whether all jobs were looked at that could be meant."""
    searched_until: int | None = None
    """When the last job that was looked at was made (milliseconds since the epoch), where not all were."""


LOOK_AGAIN = ""
"""Told where single changes cannot be, and heard where some may have been missed."""
_NEW = "new"
_STATUSES = frozenset(Status)


class Change(NamedTuple):
    """What happened to the job ``seq``; its row says how it stands now."""

    seq: int
    before: str | None
    """Its status before; None for a job that is new."""
    after: str
    ready: int
    """What its line gains or loses by it in jobs that may be claimed, by those who may."""

    def __str__(self) -> str:
        return f"{self.seq} {self.before or _NEW} {self.after} {self.ready}"

    @classmethod
    def parse(cls, text: str) -> Change | None:
        """What was written by ``str``; None for what a process of another version may have meant."""
        words = text.split(" ")
        if len(words) != 4 or words[2] not in _STATUSES:
            return None
        seq, before, after, ready = words
        return cls(int(seq), None if before == _NEW else before, after, int(ready))


def conclude(relay: Relay, job: Job) -> None:
    """The job is final: its reply is whole, or there will be none."""
    message = job.error_message or ""
    if job.status == Status.COMPLETED:
        relay.end()
    elif job.error_code == "revoked":
        relay.fail(UnauthenticatedError(KEY_REVOKED))
    elif job.status == Status.CANCELLED:
        relay.fail(CallCancelledError("request canceled"))
    elif job.error_code == "expired":
        relay.fail(CallExpiredError(message))
    else:
        relay.fail(CallFailedError(message, code=job.error_code or "failed"))
