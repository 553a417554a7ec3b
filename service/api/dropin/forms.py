"""Calls whose body is a form: what is read of it, and what is kept."""

from __future__ import annotations

from typing import Any, NamedTuple

from aiohttp import hdrs, web

from service.api.access.admission import HEADER
from service.api.access.caller import CALLER
from service.api.body_room import SMALL_BYTES
from service.api.context import BODY_ROOM
from service.api.http.receiving import read_body
from service.errors import InvalidRequestError
from service.form_data import Form

_READ_BY_OLLAMA = ("model", "language", "prompt", "response_format")
"""The fields that Ollama takes from the query before it looks into the form (Go's Request.FormValue)."""


class FormCall(NamedTuple):
    """A call with a form."""

    fields: dict[str, Any]
    """Without its files."""
    stored: bytes
    """What is kept of the call, see :mod:`service.form_data`."""
    fingerprint: bytes
    """What is the same when it is sent again; empty where the caller does not say that it may be."""


async def read_form(request: web.Request) -> FormCall:
    """The form in the body; to be called once. Raises InvalidRequestError, and what :func:`read_body` does."""
    for name in _READ_BY_OLLAMA:
        if name in request.query:
            raise InvalidRequestError(f"{name}: stands in the query; send it as a field of the form", name)
    body = await read_body(request)
    # aiohttp refuses a request with two types.
    form = Form(request.headers.get(hdrs.CONTENT_TYPE, ""), body)
    del body
    stored = await form.stored()
    if len(stored) > SMALL_BYTES:
        request.app[BODY_ROOM].hold(request, request[CALLER].owner, len(stored))
    return FormCall(form.fields, stored, await form.fingerprint() if HEADER in request.headers else b"")
