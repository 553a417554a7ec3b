"""Jobs as far as their caller may know of them: a job of another is answered as if it were not there."""

from __future__ import annotations

from aiohttp import web

from service.api.access.caller import CALLER
from service.api.context import JOBS
from service.errors import CONTENTS_DELETED, ContentsDeletedError
from service.job import Job
from service.jobs import View, no_prompt, no_request


async def visible_view(request: web.Request, job_id: str) -> View:
    """The job with its position. Raises NotFoundError."""
    jobs = request.app[JOBS]
    view = jobs.views.remembered_view(job_id) or await jobs.views.found_view(job_id)
    check_visible(request, view.job)
    return view


async def visible_view_by_seq(request: web.Request, seq: int) -> View:
    """The same by the integer id."""
    view = await request.app[JOBS].views.view_by_seq(seq)
    if not request[CALLER].sees(view.job):
        raise no_request(seq)
    return view


async def require_visible(request: web.Request, job_id: str) -> None:
    """Raises NotFoundError unless the caller may know of the job. A caller that sees all is not looked up for."""
    if not request[CALLER].sees_all:
        await visible_view(request, job_id)


def require_contents(job: Job) -> None:
    """Raises ContentsDeletedError for a job of which only the row is left."""
    if job.contents_deleted_at is not None:
        raise ContentsDeletedError(CONTENTS_DELETED)


def check_visible(request: web.Request, job: Job) -> None:
    """Raises NotFoundError unless the caller may know of the job."""
    if not request[CALLER].sees(job):
        raise no_prompt(job.id)
