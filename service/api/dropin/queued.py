"""The handler of a call that waits its turn."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from service.api.access.admission import HEADER, admit, authorise, request_key
from service.api.access.caller import CALLER
from service.api.context import CLOCK, JOBS, MODEL_LIMITS, POOL
from service.api.dropin.answering import Answer, place_headers
from service.api.dropin.caller_stream import CallerStream
from service.api.dropin.details import CallDetails
from service.api.dropin.dialect import Dialect
from service.api.dropin.forms import read_form
from service.api.dropin.passing import pass_unload
from service.api.dropin.reading import read_large_call
from service.api.dropin.repeating import Admitted, answer_repeatable
from service.api.dropin.unnamed import refuse_unnamed
from service.api.http.bodies import read_json
from service.api.http.unsaid_stream import decide_stream
from service.backend.pool import Pool
from service.endpoints import ENDPOINTS, Endpoint, Streams
from service.errors import InvalidRequestError, NotFoundError
from service.go_json import text_of
from service.job import NewJob, Priority
from service.live.relay import Relay

_PRIORITIES = {"high": Priority.HIGH, "normal": Priority.NORMAL, "low": Priority.LOW, "1": Priority.HIGH}
_PRIORITIES |= {"0": Priority.NORMAL, "-1": Priority.LOW}
_LONGEST_DEADLINE_SECONDS = 366 * 86_400


def queued_routes(dialect: Dialect) -> list[web.RouteDef]:
    """The routes of all endpoints whose requests this dialect reads."""
    return [web.post(row.path, _queued(dialect, row)) for row in ENDPOINTS.values() if row.door == dialect.door]


def _queued(dialect: Dialect, endpoint: Endpoint) -> Handler:
    """A handler that queues a call and answers with Ollama's reply."""

    async def handle(request: web.Request) -> web.StreamResponse:
        app = request.app
        if endpoint.is_form:
            # What is kept of a form is its body from here on.
            fields, body, told = await read_form(request)
        else:
            body = told = await read_json(request)
            fields = await read_large_call(body, dialect.nothing)
        is_whole = endpoint.streams is Streams.BY_CALLER and decide_stream(request, fields)
        details = dialect.describe(endpoint, fields, is_whole, app[MODEL_LIMITS])
        if details is None:
            return await refuse_unnamed(request, endpoint, body, fields.get("model"))
        if details.is_unload:
            authorise(request, details.model, Priority.NORMAL)
            return await pass_unload(request, endpoint.path, _sent(details, body).encode(), details.model)
        make = partial(_make, request, endpoint, details, body)
        admitted = Admitted(partial(admit, request, details.model, partial(_find, app[POOL]), make))
        key = request_key(request, told) if HEADER in request.headers else None
        # Once its job is stored, a call that waits keeps nothing of its body.
        del body, told, fields, details, make
        if key is not None:
            return await answer_repeatable(request, dialect, key, admitted)
        relay = Relay()
        entered = app[JOBS].submission.enter(await admitted(), relay)
        admitted.forget()
        view = entered.view
        with CallerStream(request, dialect, view.job) as stream:
            return await Answer(request, stream, view.job, relay, place_headers(view), entered).give()

    return handle


async def _find(pool: Pool, model: str) -> None:
    """Ask the backends again for a model that none of them had. When none has it now, the call is queued all the same,
    so that a backend refuses it.

    Raises NotFoundError, in Ollama's words, for a model that only backends have that must not use it.
    """
    catalogue = pool.catalogue
    if not catalogue.knows(model) and not await catalogue.look_for(model) and catalogue.hides(model):
        raise NotFoundError(f"model '{model}' not found")


def _make(request: web.Request, endpoint: Endpoint, details: CallDetails, body: bytes) -> NewJob:
    """The job that the caller asks for. Raises InvalidRequestError for headers that cannot be read."""
    headers = request.headers
    deadline = _deadline(headers.get("X-Job-Deadline-Seconds"), request)
    caller = request[CALLER]
    return NewJob(
        endpoint.door,
        endpoint.path,
        details.model,
        _sent(details, body),
        details.prompt,
        priority=_priority(headers.get("X-Priority")),
        owner=caller.owner,
        key_id=caller.key_id,
        deadline=deadline,
        runner=details.runner,
        is_streamed=details.is_streamed,
        on_disconnect="finish" if headers.get("X-On-Disconnect", "").strip().lower() == "finish" else "cancel",
    )


def _sent(details: CallDetails, body: bytes) -> str:
    return text_of(body) if details.body is None else _written(details.body)


def _written(body: dict[str, Any]) -> str:
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise InvalidRequestError("the body holds a number that is too large") from None
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a character (a lone surrogate) can only be written as an escape.
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
