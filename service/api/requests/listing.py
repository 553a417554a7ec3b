"""A page of requests whose status stands for two of a job's."""

from __future__ import annotations

from service.api.requests.translation import STATUSES
from service.jobs import Jobs, Page
from service.store.jobs import Filter


async def page_of(jobs: Jobs, which: Filter, status: str | None, limit: int, offset: int) -> Page:
    """A page, newest first, of those that are ``status``; None for all."""
    if status is None:
        return await jobs.page(which, limit, offset)
    pages = [await jobs.page(which._replace(status=each), offset + limit, 0) for each in STATUSES[status]]
    found = sorted((job for page in pages for job in page.jobs), key=lambda job: job.seq, reverse=True)
    return Page(
        found[offset : offset + limit], sum(page.total for page in pages), any(page.is_capped for page in pages)
    )
