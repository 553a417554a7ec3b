"""What was done to keys and to the service, and by whom; for admins."""

from __future__ import annotations

import json
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from service.api.access.auth import require_admin
from service.api.context import AUDIT
from service.api.http.failures import PROBLEM_JSON, Problem
from service.api.http.json_replies import json_reply
from service.api.http.operation import JSON, Access, Operation, Operations, ReplyDoc, refusals
from service.api.http.parameters import query_of
from service.audit import Action, ActorKind
from service.clock import zulu
from service.fields import Moment, one_of
from service.keys.shapes import MomentField
from service.store.audit import AuditEntry, AuditFilter

_LARGEST = 2**63 - 1


class AuditQuery(BaseModel):
    """Which page of which entries."""

    page: int = Field(default=1, ge=1, le=1_000_000_000)
    page_size: int = Field(default=50, ge=1, le=500)
    before: int | None = Field(default=None, ge=1, le=_LARGEST)
    """The id of an entry: only older ones are shown. ``next`` of a page goes on behind it."""
    action: Action | None = None
    key_id: str | None = Field(default=None, max_length=100)
    """The id of a key: what it did, and what was done to it."""
    since: MomentField = None
    """At this moment or later."""
    until: MomentField = None
    """Before this moment."""


class AuditActor(TypedDict):
    """Who it was; what is not known, or does not apply, is null."""

    kind: Annotated[str, one_of(ActorKind)]
    key_id: str | None
    key_name: str | None
    """As it was then."""
    person: str | None
    """Whom the key named."""
    address: str | None
    """Where it came from, as trusted proxies tell it."""


class AuditSubject(TypedDict):
    """What it was done to."""

    id: str
    """A key's id, a backend's name, a job's id."""
    name: str | None


class AuditItem(TypedDict):
    """Something that was done."""

    id: int
    at: Moment
    last_at: Moment
    """Of failed sign-ins that were counted together, the last."""
    action: Annotated[str, one_of(Action)]
    actor: AuditActor
    subject: AuditSubject | None
    details: dict[str, Any]
    times: int
    """How many failed sign-ins were counted together: those of one address in one minute. 1 for all else."""


class AuditPage(TypedDict):
    """A page of entries, newest first."""

    entries: list[AuditItem]
    page: int
    page_size: int
    total: int
    total_pages: int
    next: int | None
    """What to give as ``before`` for the entries that follow; null at the end."""


async def listed(request: web.Request) -> web.StreamResponse:
    require_admin(request)
    query = query_of(request, AuditQuery)
    which = AuditFilter(query.action, query.key_id, query.since, query.until, query.before)
    found, total = await request.app[AUDIT].page(which, query.page_size, (query.page - 1) * query.page_size)
    fields: AuditPage = {
        "entries": [_fields(entry) for entry in found],
        "page": query.page,
        "page_size": query.page_size,
        "total": total,
        "total_pages": -(-total // query.page_size),
        "next": found[-1].seq if query.page * query.page_size < total and found else None,
    }
    return json_reply(request, fields)


def _fields(entry: AuditEntry) -> AuditItem:
    row = entry.row
    return {
        "id": entry.seq,
        "at": zulu(row.at),
        "last_at": zulu(row.last_at),
        "action": row.action,
        "actor": {
            "kind": row.actor,
            "key_id": row.key_id,
            "key_name": row.key_name,
            "person": row.person,
            "address": row.address,
        },
        "subject": None if row.subject is None else {"id": row.subject, "name": row.subject_name},
        "details": json.loads(row.details),
        "times": row.times,
    }


ROUTES = (web.get("/api/audit", listed),)
OPERATIONS: Operations = {
    ("GET", "/api/audit"): Operation(
        summary="Read who did what",
        description=(
            "Keys that were created, changed and revoked, backends that were drained and resumed, reloads, purges, and "
            "failed sign-ins. Entries are kept as long as the log of requests."
        ),
        tag="operation",
        access=Access.ADMIN,
        query=AuditQuery,
        replies={
            200: ReplyDoc("The entries, newest first.", {JSON: AuditPage}),
            **refusals(Problem, PROBLEM_JSON, 400, 401, 403, 503),
        },
    ),
}
