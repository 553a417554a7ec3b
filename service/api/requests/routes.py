"""The handlers of the requests API."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from aiohttp import web

from service.api.access import admission
from service.api.access.caller import CALLER
from service.api.access.visibility import require_contents, visible_view_by_seq
from service.api.context import JOBS, MODEL_LIMITS, QUEUE
from service.api.dropin.reading import refuse_doubles
from service.api.http.bodies import parse_object, read_json
from service.api.http.callers import while_there
from service.api.http.json_replies import json_reply
from service.api.http.parameters import query_of, seq_of
from service.api.live.delivery import note_sent
from service.api.live.output_pieces import result_reply, text_of
from service.api.requests.schema import GenerateRequest, ListQuery, RequestPage
from service.api.requests.translation import STATUSES, accepted_fields, request_fields, row_fields, to_job
from service.job import Job, Result, Status
from service.jobs import View
from service.store.job_filters import Filter
from service.validation import validated


async def submit(request: web.Request) -> web.StreamResponse:
    """Answered only after the job is on disk."""
    app, caller = request.app, request[CALLER]
    body = await read_json(request)
    fields = parse_object(body)
    await refuse_doubles(fields)
    asked = validated(GenerateRequest, fields)
    new = to_job(asked, app[QUEUE].present.default_model, app[MODEL_LIMITS], caller.owner, caller.key_id)
    return await admission.submit(request, body, new, partial(_accepted, request))


def _accepted(request: web.Request, view: View, said: Mapping[str, str]) -> web.StreamResponse:
    return json_reply(request, accepted_fields(view.job), headers=said)


async def status(request: web.Request) -> web.StreamResponse:
    jobs = request.app[JOBS]
    job = (await visible_view_by_seq(request, seq_of(request))).job
    if job.status == Status.COMPLETED:
        # Its clients know three words, and take "completed" for an answer: they must not get an empty one.
        require_contents(job)
    prompt = await jobs.views.prompt(job)
    output = await jobs.views.result(job) if job.status == Status.COMPLETED else None
    reply = await result_reply(request, partial(_request_fields, job), prompt, output, "response", text_of)
    if job.is_final:
        note_sent(request, job, reply)
    return reply


def _request_fields(job: Job, result: Result | None, prompt: str) -> Mapping[str, object]:
    return request_fields(job, prompt, result)


async def listed(request: web.Request) -> web.StreamResponse:
    query = query_of(request, ListQuery)
    which = request[CALLER].only_visible(Filter(STATUSES[query.status] if query.status else ()))
    found = request.app[JOBS].views.page(which, query.per_page, (query.page - 1) * query.per_page)
    page = await (found if which.is_plain else while_there(request, found))
    pages = -(-page.total // query.per_page)
    fields: RequestPage = {
        "requests": [row_fields(job, job.preview) for job in page.jobs],
        "page": query.page,
        "current_page": query.page,
        "per_page": query.per_page,
        "total": page.total,
        "total_pages": pages,
        "pages": pages,
    }
    return json_reply(request, fields)


ROUTES = (
    web.post("/generate", submit),
    web.get("/status/{request_id:[0-9]+}", status),
    web.get("/requests", listed),
)
