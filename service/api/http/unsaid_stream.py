"""Who gets a stream of a chat that does not say ``stream``. Ollama streams to all of them; programs that were written
for other chat APIs expect one object, and are known by their headers and fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

from aiohttp import hdrs, web

from service.api.access.auth import has_sent_key
from service.api.context import CONFIG
from service.api.http.operation import JSON, NDJSON
from service.config import StreamDefault
from service.endpoints import CHAT

_REFUSED = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*")
_FIELDS_OF_OTHERS = ("temperature", "max_tokens", "model_name")
"""Top-level fields that Ollama's own chats do not have."""


class Unsaid(Enum):
    """What a request that does not say ``stream`` is answered with."""

    STREAM = "a stream"
    WHOLE = "one object, since the settings say so"
    OBJECT = "one object, since its caller was written for another API"


def unsaid_stream(
    accept: Iterable[str], default: StreamDefault, *, is_key_sent: bool, fields: Mapping[str, Any]
) -> Unsaid:
    """What a chat is answered with whose ``stream`` is absent or null; the first rule that applies decides. ``accept``
    are the values of the header, ``fields`` those of the body; one that is null says nothing.
    """
    accepted = set(_media_types(accept))
    if NDJSON in accepted:
        return Unsaid.STREAM
    if default != "auto":
        return Unsaid.STREAM if default == "always" else Unsaid.WHOLE
    is_of_others = any(fields.get(name) is not None for name in _FIELDS_OF_OTHERS)
    return Unsaid.OBJECT if JSON in accepted or is_key_sent or is_of_others else Unsaid.STREAM


def _media_types(accept: Iterable[str]) -> Iterator[str]:
    """What a caller takes; what it weighs with 0 it does not (RFC 9110, 12.4.2)."""
    for one in ",".join(accept).lower().split(","):
        kind, *parameters = one.split(";")
        if not any(_REFUSED.fullmatch(parameter) for parameter in parameters):
            yield kind.strip()


_ANSWERED_WITH = web.RequestKey("answered_with", Unsaid)
_NO_FIELDS: Mapping[str, Any] = {}


def decide_stream(request: web.Request, fields: Mapping[str, Any]) -> bool:
    """Whether a chat with these fields is to be answered with one object although it does not ask for that. What was
    decided also is what :func:`reads_detail` goes by from then on.
    """
    decided = Unsaid.STREAM if fields.get("stream") is not None else _by(request, fields)
    request[_ANSWERED_WITH] = decided
    return decided is not Unsaid.STREAM


def reads_detail(request: web.Request) -> bool:
    """Whether the caller looks for the message of an error in ``detail``, as it would in the API that it was written
    for. Where its body could not be read, its headers decide.
    """
    if request.path != CHAT:
        return False
    return (request.get(_ANSWERED_WITH) or _by(request, _NO_FIELDS)) is Unsaid.OBJECT


def _by(request: web.Request, fields: Mapping[str, Any]) -> Unsaid:
    accept = request.headers.getall(hdrs.ACCEPT, ())
    default = request.app[CONFIG].chat.stream_default
    return unsaid_stream(accept, default, is_key_sent=has_sent_key(request), fields=fields)
