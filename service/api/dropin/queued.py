"""The handler of a call that waits its turn."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from service.api.access.admission import HEADER, authorise, request_key
from service.api.access.caller import CALLER
from service.api.context import CLOCK, JOBS, MODEL_LIMITS, POOL
from service.api.dropin.answering import Answer, place_headers
from service.api.dropin.details import CallDetails
from service.api.dropin.dialect import Dialect
from service.api.dropin.passing import pass_refusal, pass_unload
from service.api.dropin.reading import first_object
from service.api.dropin.repeating import answer_once
from service.api.http.bodies import read_body
from service.endpoints import ENDPOINTS, Endpoint
from service.errors import InvalidRequestError, NotFoundError
from service.job import NewJob, Priority
from service.live.relay import Relay

_LONGEST_RUNNER = 1_000
"""Characters: no name that Ollama would take is longer (wire contract 0), and no database keeps longer keys."""
_PRIORITIES = {"high": Priority.HIGH, "normal": Priority.NORMAL, "low": Priority.LOW, "1": Priority.HIGH}
_PRIORITIES |= {"0": Priority.NORMAL, "-1": Priority.LOW}
_LONGEST_DEADLINE_SECONDS = 366 * 86_400


def queued_routes(dialect: Dialect) -> list[web.RouteDef]:
    """The routes of all endpoints whose requests this dialect reads."""
    return [web.post(row.path, _queued(dialect, row)) for row in ENDPOINTS.values() if row.door == dialect.door]


def _queued(dialect: Dialect, endpoint: Endpoint) -> Handler:
    """A handler that puts a call on the queue and answers with what Ollama says."""
    path = endpoint.path

    async def handle(request: web.Request) -> web.StreamResponse:
        app = request.app
        body = await read_body(request)
        fields = first_object(body)
        details = None
        if fields is not None:
            details = dialect.describe(endpoint, fields, request.headers.get("Accept", ""), app[MODEL_LIMITS])
        if details is None or len(details.runner) > _LONGEST_RUNNER:
            return await pass_refusal(request, path, body)
        if details.is_unload:
            authorise(request, details.model, Priority.NORMAL)
            return await pass_unload(request, path, body, details.model)
        if not app[POOL].knows(details.model):
            await _look_for(request, details.model)
        make = partial(_make, request, endpoint, details, body)
        if HEADER in request.headers:
            return await answer_once(request, dialect, request_key(request, body), make)
        relay = Relay()
        entered = app[JOBS].enter(await make(), relay)
        view = entered.view
        return await Answer(request, dialect, view.job, relay, place_headers(view), entered).give()

    return handle


async def _look_for(request: web.Request, model: str) -> None:
    """Somebody may have pulled it a moment ago; and what nobody has a backend is to refuse itself.

    Raises NotFoundError, in Ollama's words, for a model that only backends have that must not use it.
    """
    pool = request.app[POOL]
    if not await pool.look_for(model) and pool.hides(model):
        raise NotFoundError(f"model '{model}' not found")


async def _make(request: web.Request, endpoint: Endpoint, details: CallDetails, body: bytes) -> NewJob:
    """The job, when the caller may make it now.

    See :func:`service.api.access.admission.authorise` for what it raises.
    """
    headers = request.headers
    deadline = _deadline(headers.get("X-Job-Deadline-Seconds"), request)
    caller = request[CALLER]
    return NewJob(
        endpoint.door,
        endpoint.path,
        details.model,
        body.decode("utf-8", "replace") if details.body is None else _written(details.body),
        details.prompt,
        priority=authorise(request, details.model, _priority(headers.get("X-Priority"))),
        owner=caller.owner,
        key_id=caller.key_id,
        deadline=deadline,
        runner=details.runner,
        is_streamed=details.is_streamed,
        on_disconnect="finish" if headers.get("X-On-Disconnect", "").strip().lower() == "finish" else "cancel",
    )


def _written(body: dict[str, Any]) -> str:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # Halves of characters are legal in JSON only as they came: escaped.
        return json.dumps(body, separators=(",", ":"))
    return text


def _priority(word: str | None) -> Priority:
    if word is None:
        return Priority.NORMAL
    try:
        return _PRIORITIES[word.strip().lower()]
    except KeyError:
        raise InvalidRequestError(f"X-Priority: must be high, normal or low (got {word!r})", "X-Priority") from None


def _deadline(seconds: str | None, request: web.Request) -> int | None:
    if seconds is None:
        return None
    try:
        given = float(seconds)
    except ValueError:
        given = -1.0
    if not 0 < given <= _LONGEST_DEADLINE_SECONDS:
        raise InvalidRequestError(
            f"X-Job-Deadline-Seconds: must be a positive number of seconds (got {seconds!r})", "X-Job-Deadline-Seconds"
        )
    return request.app[CLOCK].now_ms() + int(given * 1000)
