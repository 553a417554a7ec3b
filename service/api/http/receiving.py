"""Bodies as they come: read, counted and unpacked, and thrown away where nobody reads them. Private to aiohttp is
``StreamReader._buffer``.

aiohttp itself unpacks nothing and reads no rest (:mod:`service.api.http.fast_router`): both would happen before anybody
has asked who the caller is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import hdrs, web

from service.api.access.auth import AUTH
from service.api.access.caller import CALLER
from service.api.body_room import SMALL_BYTES
from service.api.context import BODY_ROOM
from service.api.http.unpacking import coding_of, unpacked
from service.errors import BodyTooLargeError, SlowBodyError

_GRACE_SECONDS = 60.0
_SHORT_GRACE_SECONDS = 15.0
"""Of a body for which room is reserved: it keeps that from others, whether it comes or not."""
_PROGRESS_SECONDS = 60.0
"""A body of which nothing has come for so long is given up, whatever has come before."""
_SLOWEST = 8 * 1024
"""Bytes a second that a body has to come with, after the grace."""
_WHOLE_SECONDS = 120.0
"""A body for which room is reserved has to come so fast that it is there after this time and the grace."""
_REST_SECONDS = 5.0
_NOTHING: deque[bytes] = deque()


async def read_body(request: web.Request) -> bytes:
    """The whole body, unpacked; to be called once. Larger ones count as held (:class:`BodyRoom`) until the request is
    answered, or ``request.app[BODY_ROOM].release(request)`` says before that nothing holds the body any more.

    Raises BodyTooLargeError and BodiesFullError, both before anything is read where the length is known,
    UnknownCodingError, SlowBodyError, InvalidRequestError for what cannot be unpacked, and UnauthenticatedError when
    the caller's key has ended while it came.
    """
    most, content = request.client_max_size, request.content
    is_packed = hdrs.CONTENT_ENCODING in request.headers
    coding = coding_of(",".join(request.headers.getall(hdrs.CONTENT_ENCODING))) if is_packed else None
    if content.is_eof():
        # The body has come together with the head, as most do, and mostly in one piece. It is taken past aiohttp, which
        # would make the connection look for more to parse, and that takes as long as all else here.
        pieces: deque[bytes] = getattr(content, "_buffer", _NOTHING)
        body = pieces.popleft() if len(pieces) == 1 else content.read_nowait()
        if len(body) > most:
            raise _too_large(most)
        if len(body) > SMALL_BYTES:
            await request.app[BODY_ROOM].reserve(request, request[CALLER].owner, len(body))
    else:
        length = request.content_length
        if length is not None and length > most:
            raise _too_large(most)
        if length is not None and length > SMALL_BYTES:
            await request.app[BODY_ROOM].reserve(request, request[CALLER].owner, length)
        body = await _received(request, most, length)
    if coding is not None:
        body = await _unpacked(request, body, coding, most)
    # Who begins a request before its key is revoked must not carry it out afterwards, however slowly it comes.
    request.app[AUTH].require_good(request[CALLER].key)
    return body


class PassedBody:
    """A body that is passed on while it comes, packed as it is. It ends with SlowBodyError when nothing comes for long,
    which is ``stalled`` then: whoever sends it on may hide that behind an error of its own.
    """

    def __init__(self, request: web.Request) -> None:
        self._content = request.content
        self.stalled: SlowBodyError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._content.at_eof():
            try:
                async with asyncio.timeout(_PROGRESS_SECONDS):
                    piece = await self._content.readany()
            except TimeoutError:
                self.stalled = SlowBodyError(f"nothing more of the body has come in {_PROGRESS_SECONDS:g} s")
                raise self.stalled from None
            yield piece


async def throw_rest_away(request: web.Request, response: web.StreamResponse) -> None:
    """Answer a request whose body nobody has read to its end, and throw away what still comes of it, packed as it is.

    Clients read the answer only after they have sent all, and closing at once would take it from them. What comes is
    bounded, in time and by ``server.max_body``; beyond that aiohttp closes the connection.
    """
    transport, content, left = request.transport, request.content, request.client_max_size
    if transport is None or transport.is_closing() or isinstance(response, web.WebSocketResponse):
        return
    length = request.content_length
    if length is None or length > left:
        response.force_close()
    # A connection that is lost leaves nothing to do. aiohttp raises RuntimeError when it was lost before.
    with suppress(TimeoutError, ConnectionError, web.RequestPayloadError, RuntimeError):
        await response.prepare(request)
        await response.write_eof()
        async with asyncio.timeout(_REST_SECONDS):
            while not content.is_eof():
                left -= len(await content.readany())
                if left <= 0:
                    # The kernel may still take over the last of it, so that the sender comes to its end and reads.
                    await asyncio.sleep(_REST_SECONDS)
    _let_go(content.exception())


async def _received(request: web.Request, most: int, length: int | None) -> bytes:
    content, body = request.content, bytearray()
    grace_seconds, slowest, is_counted = _GRACE_SECONDS, float(_SLOWEST), length is not None
    if length is not None and length > SMALL_BYTES:
        grace_seconds, slowest = _SHORT_GRACE_SECONDS, max(slowest, length / _WHOLE_SECONDS)
    loop = asyncio.get_running_loop()
    latest = loop.time() + grace_seconds
    try:
        async with asyncio.timeout_at(latest) as limit:
            while piece := await content.readany():
                body += piece
                if len(body) > most:
                    raise _too_large(most)
                if not is_counted and len(body) > SMALL_BYTES:
                    request.app[BODY_ROOM].hold(request, request[CALLER].owner, len(body))
                limit.reschedule(min(latest + len(body) / slowest, loop.time() + _PROGRESS_SECONDS))
        return bytes(body)
    except TimeoutError:
        seconds = loop.time() - latest + grace_seconds
        raise SlowBodyError(f"only {len(body)} bytes of the body have come in {seconds:.0f} s") from None
    except (ConnectionError, web.RequestPayloadError) as error:
        _let_go(error)
        raise type(error)(*error.args) from None
    finally:
        body.clear()


async def _unpacked(request: web.Request, packed: bytes, coding: str, most: int) -> bytes:
    room, owner = request.app[BODY_ROOM], request[CALLER].owner

    def grow(size: int) -> None:
        if request.transport is None:
            raise ConnectionResetError("the caller has closed the connection")
        if size > SMALL_BYTES:
            room.hold(request, owner, len(packed) + size)

    body = await unpacked(packed, coding, most, room.unpacking, grow)
    if len(body) > SMALL_BYTES:
        room.hold(request, owner, len(body))
    else:
        room.release(request)
    return body


def _too_large(most: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {most} bytes, which is the most that is taken")


def _let_go(error: BaseException | None) -> None:
    """Break the cycle of an error that aiohttp keeps in the body's stream: its traceback holds the frames that waited
    for the body, and these the stream with all that had come. Only the garbage collector would find it, hours later.
    """
    if error is not None:
        error.__traceback__ = None
