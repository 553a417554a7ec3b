"""What a caller calls its request: ``X-Request-ID`` comes back on every reply, and stands in the access log."""

from __future__ import annotations

from aiohttp import web
from multidict import istr

from service.api.access.unread_head import header_in

HEADER = istr("X-Request-ID")
UNREAD = web.RequestKey("unread_request_id", str)
"""Where a request that could not be read has it."""
_LONGEST = 128


def request_id_of(request: web.BaseRequest) -> str | None:
    """1 to 128 printable ASCII characters; anything else is passed over."""
    return _request_id(request.headers.get(HEADER))


def request_id_in(head: bytes) -> str | None:
    """The same from the beginning of a request that cannot be read as a whole."""
    return _request_id(header_in(head, HEADER.lower()))


def _request_id(value: str | None) -> str | None:
    if value is None or not value.isascii() or not value.isprintable() or not 0 < len(value) <= _LONGEST:
        return None
    return value
