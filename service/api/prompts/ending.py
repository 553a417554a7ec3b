"""The handlers that end jobs, or remove them: one, or all that a filter finds."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext

from aiohttp import web

from service.api.access.actor import actor_of
from service.api.access.caller import CALLER, Caller
from service.api.access.client_address import owner_named
from service.api.access.visibility import require_visible, visible_view
from service.api.context import AUDIT, JOBS
from service.api.dropin.reading import refuse_doubles
from service.api.http.bodies import parse_object, read_json
from service.api.http.json_replies import json_reply
from service.api.http.parameters import job_id_of, query_of
from service.api.live.job_shape import job_fields
from service.api.prompts.schema import (
    CancelReply,
    CancelRequest,
    DeleteQuery,
    JobFilter,
    PurgeFilter,
    PurgeReply,
    PurgeRequest,
)
from service.audit import Action
from service.clock import moment
from service.errors import ForbiddenError, InvalidRequestError
from service.job import Status, model_key
from service.jobs.cancelling import UNFINISHED
from service.jobs.purging import Purged
from service.store.job_filters import Filter
from service.validation import validated


async def delete(request: web.Request) -> web.StreamResponse:
    job_id, query = job_id_of(request), query_of(request, DeleteQuery)
    if query.purge:
        return await _purge(request, job_id)
    await require_visible(request, job_id)
    return json_reply(request, job_fields(await request.app[JOBS].submission.cancel(job_id)))


async def _purge(request: web.Request, job_id: str) -> web.StreamResponse:
    view = await visible_view(request, job_id)
    if not request[CALLER].may_purge(view.job):
        raise ForbiddenError("a prompt is purged by whoever has made it, or with an admin's API key")
    purged = await request.app[JOBS].purging.purge(job_id)
    if purged.jobs:
        await request.app[AUDIT].record(Action.PURGED, actor_of(request), job_id)
    return _purged(request, purged)


async def cancel_many(request: web.Request) -> web.StreamResponse:
    asked = validated(CancelRequest, await _fields(request))
    caller, wanted = request[CALLER], asked.filter
    which = _wanted(caller, wanted, "cancelled", everybody=asked.everybody)
    statuses = UNFINISHED if wanted.status is None else tuple(map(Status, wanted.status))
    cancelling = request.app[JOBS].cancelling
    async with _turn(request, which):
        reply: CancelReply
        if asked.dry_run:
            reply = {"cancelled": 0, "matching": await cancelling.count(which, statuses)}
        else:
            reply = {"cancelled": await cancelling.cancel(which, statuses)}
    return json_reply(request, reply)


async def purge_many(request: web.Request) -> web.StreamResponse:
    asked = validated(PurgeRequest, await _fields(request))
    wanted, caller = asked.filter, request[CALLER].narrowed
    if all(value is None for value in wanted.model_dump().values()):
        raise InvalidRequestError("filter: must say which jobs, by at least one field", "filter")
    if asked.everybody and caller.key is None and not caller.is_admin:
        raise ForbiddenError("everybody: jobs of other addresses are purged with an admin's API key")
    which = _wanted(caller, wanted, "purged", everybody=asked.everybody)
    statuses, gone = tuple(map(Status, wanted.status or Status)), list[str]()
    async with _turn(request, which):
        try:
            return _purged(request, await request.app[JOBS].purging.purge_all(which, statuses, gone))
        finally:
            if gone:
                told, who = _noted(wanted), actor_of(request)
                await request.app[AUDIT].record(
                    Action.PURGED, who, jobs=len(gone), filter=told, everybody=asked.everybody
                )


def _noted(wanted: PurgeFilter) -> dict[str, object]:
    """The filter as it is written down: what was searched for may be part of what was removed."""
    fields = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
    told = {name: moment(fields[name]) for name in ("from", "to") if name in fields}
    return fields | told | ({} if wanted.q is None else {"q": "…"})


def _wanted(caller: Caller, wanted: JobFilter, done: str, *, everybody: bool) -> Filter:
    """The jobs that are meant. Raises ForbiddenError where the caller may not name them."""
    owner = None if wanted.owner is None else owner_named(wanted.owner)
    if not caller.may_name(owner, wanted.key):
        raise ForbiddenError(f"filter: jobs of other owners and keys are {done} with an admin's API key")
    which = Filter(
        model_key=wanted.model and model_key(wanted.model),
        text=wanted.q,
        whose=owner,
        created_from=wanted.from_,
        created_to=wanted.to,
    )
    is_named = owner is not None or wanted.key is not None
    # Without a key there is no more to see than one's own, where not all is to be seen.
    sees_more = caller.sees_all or caller.key is not None
    which = caller.only_visible(which) if sees_more and (everybody or is_named) else caller.only_own(which)
    return which if wanted.key is None else which._replace(key_id=wanted.key)


def _turn(request: web.Request, which: Filter) -> AbstractAsyncContextManager[None]:
    """To look through texts is a search, of which each owner has one at a time."""
    return nullcontext() if which.text is None else request.app[JOBS].views.search_turns.turn(request[CALLER].owner)


async def _fields(request: web.Request) -> dict[str, object]:
    fields = parse_object(await read_json(request))
    await refuse_doubles(fields)
    return fields


def _purged(request: web.Request, purged: Purged) -> web.StreamResponse:
    reply: PurgeReply = {"purged": purged.jobs, "erased": purged.is_erased}
    return json_reply(request, reply)


ENDING_ROUTES = (
    web.delete("/api/v1/prompt/{id}", delete),
    web.post("/api/v1/prompts/cancel", cancel_many),
    web.post("/api/v1/prompts/purge", purge_many),
)
