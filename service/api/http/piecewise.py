"""Replies that are made while they are sent: of a long text only a piece is in memory, however slowly it is taken."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

from aiohttp import hdrs, web

from service.api.http.callers import CALLERS, hang_up, nobody
from service.api.http.json_replies import JSON_HEADERS, json_bytes
from service.api.http.raw_replies import stream_reply
from service.errors import ServiceError
from service.store.long_texts import StoredText

_SENT_BYTES = 64 * 1024
"""Shorter pieces are sent together."""

Pieces = AsyncIterator[bytes]
"""JSON, cut anywhere."""


async def piecewise_json(request: web.Request, pieces: Pieces, size: int) -> web.StreamResponse:
    """An API's answer of about so many bytes. Its caller is cut off where it takes nothing, and sees it break off where
    the store gives no more of it.
    """
    response = stream_reply(request, 200, JSON_HEADERS)
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:
        return response
    with request.app[CALLERS].waiting(request, nobody) as caller:
        try:
            sent = 0
            async with aclosing(_gathered(pieces)) as gathered:
                async for data in gathered:
                    sent += len(data)
                    await caller.write(response, data, max(0, size - sent))
            await caller.end(response, b"")
        except ConnectionError:
            return web.Response(status=499)
        except ServiceError:
            hang_up(request)
            return web.Response(status=502)
    return response


async def object_in_pieces(fields: Mapping[str, object], long: Mapping[str, Pieces]) -> Pieces:
    """A JSON object with these fields. The values in ``long`` stand in place of those of the same name, and may have
    further members behind them.
    """
    mark = b"{"
    for name, value in fields.items():
        yield mark + json_bytes(name) + b":"
        mark = b","
        if name in long:
            async for piece in long[name]:
                yield piece
        else:
            yield json_bytes(value)
    yield b"}"


async def text_in_pieces(text: StoredText) -> Pieces:
    """A stored text as a JSON string."""
    yield b'"'
    async for piece in text.texts():
        yield json_bytes(piece)[1:-1]
    yield b'"'


async def _gathered(pieces: Pieces) -> AsyncGenerator[bytes, None]:
    gathered = bytearray()
    async for piece in pieces:
        gathered += piece
        if len(gathered) >= _SENT_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
