"""A result that was sent whole to whoever asked for the job: where its key keeps nothing, its contents go soon."""

from __future__ import annotations

from aiohttp import web

from service.api.access.caller import CALLER, Caller
from service.api.context import JOBS
from service.job import Job


def note_sent(request: web.Request, job: Job) -> None:
    """The answer of this request holds all that the job has brought."""
    note_sent_to(request.app, request[CALLER], job)


def note_sent_to(app: web.Application, caller: Caller, job: Job) -> None:
    """The caller has got all that the job has brought. An admin that only looks takes nothing from its owner."""
    key = caller.key
    if key is not None and key.retention_days == 0 and job.key_id == key.id:
        app[JOBS].retention.sent(job)
