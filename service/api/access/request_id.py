"""What a caller calls its request: ``X-Request-ID`` comes back on every reply, and stands in the access log."""

from __future__ import annotations

from aiohttp import web
from multidict import istr

HEADER = istr("X-Request-ID")
_LONGEST = 128


def request_id_of(request: web.BaseRequest) -> str | None:
    """1 to 128 printable ASCII characters; anything else is passed over."""
    value = request.headers.get(HEADER)
    if value is None or not value.isascii() or not value.isprintable() or not 0 < len(value) <= _LONGEST:
        return None
    return value
