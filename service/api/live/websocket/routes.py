"""The websocket's handler."""

from __future__ import annotations

from aiohttp import HttpVersion11, web

from service.api.context import CONFIG, LONG_LIVED
from service.api.http.cross_origin import is_allowed_origin
from service.api.live.websocket.session import Session
from service.errors import ForbiddenError, InvalidRequestError

_CLOSING_SECONDS = 2.0


async def connect(request: web.Request) -> web.WebSocketResponse:
    """Serve one websocket. Browsers send no preflight for it, so the page's origin is checked here."""
    if not is_allowed_origin(request):
        raise ForbiddenError("pages of this origin may not connect (server.allowed_origins)")
    if request.version < HttpVersion11:
        raise InvalidRequestError("a websocket needs HTTP/1.1, which every proxy on the way has to speak")
    if not request.headers.get("Sec-WebSocket-Key", "").isascii():
        # aiohttp would answer it with 500.
        raise InvalidRequestError("Sec-WebSocket-Key: must be base64", "Sec-WebSocket-Key")
    limits = request.app[CONFIG].websocket
    # Compression would take more memory than all the rest of a connection.
    socket = web.WebSocketResponse(
        heartbeat=limits.heartbeat_seconds,
        max_msg_size=limits.max_message_bytes,
        timeout=_CLOSING_SECONDS,
        compress=False,
    )
    await socket.prepare(request)
    transport = request.transport
    connection = Session(request, socket)
    try:
        with request.app[LONG_LIVED].seated(connection.leave, connection.key, connection.lose_key):
            await connection.listen()
    finally:
        connection.close()
        if transport is not None and transport.get_write_buffer_size() > 0:
            # The client reads nothing any more, and a polite close would wait for it for ever.
            transport.abort()
    return socket


ROUTES = (web.get("/api/v1/ws", connect, allow_head=False),)
