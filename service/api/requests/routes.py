"""The handlers of the requests API."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from aiohttp import web

from service.api.access import admission
from service.api.access.caller import CALLER
from service.api.access.visibility import visible_view_by_seq
from service.api.context import JOBS, MODEL_LIMITS, QUEUE
from service.api.http.bodies import parse_object, read_body
from service.api.http.json_replies import json_reply
from service.api.http.parameters import query_of, seq_of
from service.api.http.validation import validated
from service.api.live.output_pieces import result_reply, text_of
from service.api.requests.schema import GenerateRequest, ListQuery, RequestPage
from service.api.requests.translation import STATUSES, accepted_fields, request_fields, row_fields, to_job
from service.job import Job, Result, Status
from service.jobs import Jobs, Page, View
from service.store.job_queries import Filter


async def page_of(jobs: Jobs, which: Filter, status: str | None, limit: int, offset: int) -> Page:
    """A page, newest first, of those that are ``status``; None for all."""
    if status is None:
        return await jobs.views.page(which, limit, offset)
    pages = [await jobs.views.page(which._replace(status=each), offset + limit, 0) for each in STATUSES[status]]
    found = sorted((job for page in pages for job in page.jobs), key=lambda job: job.seq, reverse=True)
    return Page(
        found[offset : offset + limit], sum(page.total for page in pages), any(page.is_capped for page in pages)
    )


async def submit(request: web.Request) -> web.StreamResponse:
    """Answered only after the job is on disk."""
    app, caller = request.app, request[CALLER]
    body = await read_body(request)
    asked = validated(GenerateRequest, parse_object(body))
    new = to_job(asked, app[QUEUE].present.default_model, app[MODEL_LIMITS], caller.owner, caller.key_id)
    return await admission.submit(request, body, new, partial(_accepted, request))


def _accepted(request: web.Request, view: View, said: Mapping[str, str]) -> web.StreamResponse:
    return json_reply(request, accepted_fields(view.job), headers=said)


async def status(request: web.Request) -> web.StreamResponse:
    jobs = request.app[JOBS]
    job = (await visible_view_by_seq(request, seq_of(request))).job
    prompt = await jobs.views.prompt(job)
    output = await jobs.views.result(job) if job.status == Status.COMPLETED else None
    return await result_reply(request, partial(_request_fields, job), prompt, output, "response", text_of)


def _request_fields(job: Job, result: Result | None, prompt: str) -> Mapping[str, object]:
    return request_fields(job, prompt, result)


async def listed(request: web.Request) -> web.StreamResponse:
    query = query_of(request, ListQuery)
    which = request[CALLER].only_visible(Filter())
    page = await page_of(request.app[JOBS], which, query.status, query.per_page, (query.page - 1) * query.per_page)
    fields: RequestPage = {
        "requests": [row_fields(job, job.preview) for job in page.jobs],
        "page": query.page,
        "per_page": query.per_page,
        "total": page.total,
        "total_pages": -(-page.total // query.per_page),
    }
    return json_reply(request, fields)


ROUTES = (
    web.post("/generate", submit),
    web.get("/status/{request_id:[0-9]+}", status),
    web.get("/requests", listed),
)
