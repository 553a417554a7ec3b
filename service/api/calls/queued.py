"""The handler of a call that waits its turn."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from service.api.calls.answering import Answer
from service.api.calls.dialect import CallDetails, Dialect
from service.api.calls.passing import pass_on, pass_unload
from service.api.calls.reading import first_object
from service.api.context import CLOCK, JOBS, POOL
from service.errors import InvalidRequestError
from service.job import NewJob, Priority
from service.relay import Relay

_PRIORITIES = {"high": Priority.HIGH, "normal": Priority.NORMAL, "low": Priority.LOW, "1": Priority.HIGH}
_PRIORITIES |= {"0": Priority.NORMAL, "-1": Priority.LOW}
_LONGEST_DEADLINE_SECONDS = 366 * 86_400


def queued(dialect: Dialect, endpoint: str) -> Handler:
    """A handler that puts a call on the queue and answers with what Ollama says."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fields = first_object(body)
        details = dialect.describe(endpoint, fields, request.headers.get("Accept", "")) if fields is not None else None
        if details is None:
            return await pass_on(request, endpoint, body)
        if details.is_unload:
            return await pass_unload(request, endpoint, body, details.model)
        if not request.app[POOL].knows(details.model):
            # Somebody may have pulled it a moment ago; and what nobody has a backend is to refuse itself.
            await request.app[POOL].look_for(details.model)
        relay = Relay()
        view = await request.app[JOBS].submit(_job(request, dialect.door, endpoint, details, body), relay)
        return await Answer(request, dialect, view.job, relay, view.position).give()

    return handle


def _job(request: web.Request, door: str, endpoint: str, details: CallDetails, body: bytes) -> NewJob:
    headers = request.headers
    return NewJob(
        door,
        endpoint,
        details.model,
        body.decode("utf-8", "replace") if details.body is None else _written(details.body),
        details.prompt,
        priority=_priority(headers.get("X-Priority")),
        deadline=_deadline(headers.get("X-Job-Deadline-Seconds"), request.app[CLOCK].now_ms()),
        runner=details.runner,
        is_streamed=details.is_streamed,
        on_disconnect="finish" if headers.get("X-On-Disconnect", "").lower() == "finish" else "cancel",
    )


def _written(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _priority(word: str | None) -> Priority:
    if word is None:
        return Priority.NORMAL
    try:
        return _PRIORITIES[word.strip().lower()]
    except KeyError:
        raise InvalidRequestError(f"X-Priority: must be high, normal or low (got {word!r})", "X-Priority") from None


def _deadline(seconds: str | None, now_ms: int) -> int | None:
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
    return now_ms + int(given * 1000)
