"""What the API's document says of a route. Each dialect describes its routes in a table; the document is built from
these tables, from the models that they name, and from the routes that are served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream"
TEXT = "text/plain"
BYTES = "application/octet-stream"
HTML = "text/html"


class Access(Enum):
    """Who may call."""

    OPEN = "anybody"
    CALLER = "whoever has a key, where keys are required"
    ADMIN = "an admin, always"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value in the path or in a header; those in the path are required."""

    name: str
    place: Literal["path", "header", "query"]
    description: str
    kind: Any = str
    """The type that pydantic describes."""


@dataclass(frozen=True, slots=True)
class ReplyDoc:
    """What may be answered with one status: the type of the body for each media type; of a stream, the type of each
    line or event.
    """

    description: str
    content: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    """By name; the document says once for all routes what they mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    summary: str
    tag: str
    replies: Mapping[int | Literal["default"], ReplyDoc]
    description: str = ""
    request: Any = None
    """The type of the body; None: there is none."""
    request_media_type: str = JSON
    query: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    access: Access = Access.CALLER


IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Names this request, so that it may be sent again: within 24 hours the same body is answered with the same job, "
    "and where that is finished with the same reply.",
    Annotated[str, Field(pattern="^[!-~]([ -~]{0,253}[!-~])?$")],
)

Operations = Mapping[tuple[str, str], Operation]
"""By method and path, as aiohttp writes the path."""

_REFUSALS: Mapping[int, tuple[str, tuple[str, ...]]] = {
    400: ("The request cannot be understood.", ()),
    401: ("A key is needed, or the one that was sent is unknown, revoked or expired.", ("WWW-Authenticate",)),
    403: ("The caller may not do this: it needs a key that may.", ()),
    404: ("It is not there, or not for this caller.", ()),
    410: ("What was asked and answered is deleted, and only how the job ended is still known.", ()),
    408: ("The body did not come in time.", ()),
    413: ("The body is larger than what is taken, or unpacks to more.", ()),
    415: (
        "The body is packed as nobody here unpacks; `Accept-Encoding` says what is taken.",
        ("Accept-Encoding",),
    ),
    422: ("The idempotency key was used with another body or route.", ()),
    429: ("A limit of this caller's is reached.", ("Retry-After",)),
    499: ("Somebody has cancelled the job.", ()),
    500: ("The answer ended before it was complete, or is not what the model should write.", ()),
    503: (
        "Not now: the service is full or stopping, cannot store, or has no backend.",
        ("Retry-After",),
    ),
    504: ("The job was still queued at its deadline.", ()),
}


def others(content: Mapping[str, Any], headers: tuple[str, ...] = ()) -> ReplyDoc:
    """Any other reply to a call that is passed on, by media type."""
    return ReplyDoc("Whatever else Ollama answers, as it comes.", content, headers)


def refusals(
    shape: Any, media_type: str, *statuses: int, headers: tuple[str, ...] = ()
) -> dict[int | Literal["default"], ReplyDoc]:
    """The replies with these statuses, which are refusals in a dialect's shape."""
    refused: dict[int | Literal["default"], ReplyDoc] = {}
    for status in statuses:
        description, own_headers = _REFUSALS[status]
        refused[status] = ReplyDoc(description, {media_type: shape}, (*own_headers, *headers))
    return refused
