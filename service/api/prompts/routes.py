"""The handlers of the prompts API."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial

from aiohttp import web

from service.api.access import admission
from service.api.access.caller import CALLER
from service.api.access.visibility import check_visible, require_contents, visible_view
from service.api.context import CLOCK, CONFIG, JOBS, LONG_LIVED, MODEL_LIMITS, QUEUE
from service.api.dropin.reading import refuse_doubles
from service.api.http.bodies import parse_object, read_json
from service.api.http.callers import while_there
from service.api.http.json_replies import json_reply
from service.api.http.parameters import job_id_of, query_of
from service.api.http.piecewise import piecewise_json
from service.api.http.trailing_slash import below
from service.api.live.delivery import note_sent
from service.api.live.events import EventStream, position_of
from service.api.live.feeds import FEEDS
from service.api.live.job_shape import accepted_fields, place_headers, result_fields, view_fields
from service.api.live.long_poll import LongPoll
from service.api.live.output_pieces import output_of, result_reply
from service.api.prompts.ending import ENDING_ROUTES
from service.api.prompts.schema import (
    ListQuery,
    PromptPage,
    PromptRequest,
    ResultQuery,
    StatusQuery,
)
from service.api.prompts.translation import to_job
from service.clock import moment
from service.endpoints import ENDPOINTS
from service.form_data import shown_form
from service.go_json import fields_of
from service.job import Job, Result, Status, model_key
from service.jobs import View
from service.store.job_filters import Filter
from service.validation import validated


async def submit(request: web.Request) -> web.StreamResponse:
    """Answered only after the job is on disk."""
    app, caller = request.app, request[CALLER]
    body = await read_json(request)
    fields = parse_object(body)
    await refuse_doubles(fields)
    asked = validated(PromptRequest, fields)
    new = to_job(asked, app[QUEUE].present, app[MODEL_LIMITS], app[CLOCK], caller.owner, caller.key_id)
    return await admission.submit(request, body, new, partial(_accepted, request))


def _accepted(request: web.Request, view: View, said: Mapping[str, str]) -> web.StreamResponse:
    headers = {"Location": below(request, f"{view.job.id}/status"), **place_headers(view), **said}
    return json_reply(request, accepted_fields(view), status=202, headers=headers)


async def status(request: web.Request) -> web.StreamResponse:
    job_id, query = job_id_of(request), query_of(request, StatusQuery)
    view = await visible_view(request, job_id)
    if query.wait and not view.job.is_final:
        with _waiting(request):
            view = await LongPoll(request).until_changed(job_id, query.status or view.job.status, query.wait)
    return json_reply(request, view_fields(view), headers=place_headers(view))


async def result(request: web.Request) -> web.StreamResponse:
    jobs = request.app[JOBS]
    job_id, query = job_id_of(request), query_of(request, ResultQuery)
    view = await visible_view(request, job_id)
    if query.wait and not view.job.is_final:
        with _waiting(request):
            view = await LongPoll(request).until_final(job_id, query.wait)
    if not view.job.is_final:
        return json_reply(request, result_fields(view.job, None, None))
    job = view.job
    require_contents(job)
    prompt = await jobs.views.prompt(job)
    output = await jobs.views.result(job) if job.status == Status.COMPLETED else None
    reply = await result_reply(request, partial(_result_fields, job), prompt, output, "result", output_of)
    note_sent(request, job, reply)
    return reply


def _result_fields(job: Job, result: Result | None, prompt: str) -> Mapping[str, object]:
    return result_fields(job, result, prompt)


async def asked(request: web.Request) -> web.StreamResponse:
    view = await visible_view(request, job_id_of(request))
    require_contents(view.job)
    text = await request.app[JOBS].views.request(view.job)
    if text is not None and ENDPOINTS[view.job.endpoint].is_form:
        # Its files are in its text, behind the first line.
        return json_reply(request, shown_form(await text.first_line()))
    if text is None or text.is_short:
        return json_reply(request, fields_of((await text.whole()).encode()) if text is not None else None)
    # It is JSON already, and goes as it was sent.
    return await piecewise_json(request, text.pieces(), text.size)


async def stream(request: web.Request) -> web.StreamResponse:
    job_id, position = job_id_of(request), position_of(request)
    events = EventStream(request, request.app[CONFIG].websocket.heartbeat_seconds)
    async with request.app[FEEDS].opened(job_id, position, events.wake) as feed:
        check_visible(request, feed.job)
        require_contents(feed.job)
        with _waiting(request), request.app[LONG_LIVED].seated(events.leave, lambda: request[CALLER].key):
            await events.relay(feed)
        if events.is_whole:
            note_sent(request, feed.job, events.response)
    return events.response


async def listed(request: web.Request) -> web.StreamResponse:
    query = query_of(request, ListQuery)
    statuses = (query.status,) if query.status else ()
    which = request[CALLER].only_visible(Filter(statuses, query.model and model_key(query.model), text=query.q))
    views = request.app[JOBS].views
    place = (query.page_size, (query.page - 1) * query.page_size, query.before)
    if which.text is not None:
        page = await while_there(request, views.search(request[CALLER].owner, which, *place))
    elif which.is_plain:
        page = await views.page(which, *place)
    else:
        page = await while_there(request, views.page(which, *place))
    fields: PromptPage = {
        "prompts": [view_fields(view) for view in await views.views(page.jobs)],
        "page": query.page,
        "page_size": query.page_size,
        "total": page.total,
        "total_pages": -(-page.total // query.page_size),
        "next": page.after,
    }
    if page.is_capped:
        fields["total_is_capped"] = True
    if not which.is_plain:
        fields["complete"] = page.is_complete
        fields["searched_until"] = None if page.searched_until is None else moment(page.searched_until)
    return json_reply(request, fields)


def _waiting(request: web.Request) -> AbstractContextManager[None]:
    return request.app[LONG_LIVED].waiting(request[CALLER].owner)


ROUTES = (
    web.post("/api/v1/prompt", submit),
    web.get("/api/v1/prompt/{id}/status", status),
    web.get("/api/v1/prompt/{id}/result", result),
    web.get("/api/v1/prompt/{id}/request", asked),
    web.get("/api/v1/prompt/{id}/stream", stream, allow_head=False),
    web.get("/api/v1/prompts", listed),
    *ENDING_ROUTES,
)
