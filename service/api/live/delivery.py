"""A result that was sent whole to whoever asked for the job: where its key keeps nothing, its contents go soon."""

from __future__ import annotations

from aiohttp import hdrs, web

from service.api.access.caller import CALLER, Caller
from service.api.context import JOBS
from service.job import Job

_BROKEN = (499, 502)
"""What stands in the log for a reply that its caller has left, or that the store could not give to its end."""


def note_sent(request: web.Request, job: Job, reply: web.StreamResponse) -> None:
    """The reply to this request holds all that the job has brought, unless it broke off or has no body."""
    if request.method != hdrs.METH_HEAD and reply.status not in _BROKEN:
        note_sent_to(request.app, request[CALLER], job)


def note_sent_to(app: web.Application, caller: Caller, job: Job) -> None:
    """The caller has got all that the job has brought. An admin that only looks takes nothing from its owner."""
    key = caller.key
    if key is not None and key.retention_days == 0 and job.key_id == key.id:
        app[JOBS].retention.sent(job)
