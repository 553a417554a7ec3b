"""Bodies on their way in."""

from __future__ import annotations

from aiohttp import web


async def read_body(request: web.Request) -> bytes:
    """The whole body. Raises HTTPRequestEntityTooLarge, at once for one that says of itself that it is too large."""
    length = request.content_length
    if length is not None and length > request.client_max_size:
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, length)
    return await request.read()
