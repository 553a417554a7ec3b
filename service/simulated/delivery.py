"""Put replies on the wire, and break them there as the faults say."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from service.simulated.errors import ReplyError
from service.simulated.faults import UNDISTURBED, ArmedFault, Disruption, Fault, FaultKind
from service.simulated.observations import Observations
from service.simulated.wire import JSON, Reply

# Go's server buffers so much of a reply, and announces the length of one that is no longer than that.
_BUFFER_BEFORE_CHUNKING = 2048
_FLOOD_BYTES = 256 * 1024
_NOTHING_AGAIN = '{"models":[…[],…[]]}'
_ENDS = (
    FaultKind.RUNNER_KILLED,
    FaultKind.ERROR_LINE,
    FaultKind.SEAT_LOST,
    FaultKind.NO_DONE,
    FaultKind.RESET,
    FaultKind.HANG_UP,
)
_HTML = "<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>\n"


@dataclass(frozen=True, slots=True)
class Stream:
    """A reply token by token. `closing` is asked for after the last frame, when the counts are known.

    `end` breaks it off, as a fault does. `interlude` is what passes after the first frame, and may end the stream
    with what it gives.
    """

    content_type: str
    frames: Iterator[bytes]
    closing: Callable[[], bytes]
    broken: Callable[[str], bytes]
    token_seconds: float = 0.0
    is_endless: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    # Whether the runner that makes the tokens is gone: a fault of another request may have killed it.
    is_cut: Callable[[], bool] = lambda: False
    # The fault under which the runner says nothing any more, once there is one.
    hang: Callable[[], ArmedFault | None] = lambda: None
    end: Fault | None = None
    interlude: Callable[[], Awaitable[bytes]] | None = None


class ConnectionBrokenError(Exception):
    """A fault has closed the connection: there is nobody to answer."""


def page(fault: Fault) -> Reply:
    """What another server than Ollama might say."""
    body = (fault.body if fault.body is not None else _HTML).encode()
    return Reply(fault.reply_status, body, "text/html; charset=utf-8")


class Delivery:
    """One request's way back.

    `is_whole`: the client was given everything it was owed. `is_broken`: a fault closed the connection.
    """

    def __init__(
        self,
        request: web.Request,
        observations: Observations,
        disruption: Disruption = UNDISTURBED,
        *,
        flush_each_token: bool = True,
    ) -> None:
        self._request = request
        self._observations = observations
        self._disruption = disruption
        self._flush_each_token = flush_each_token
        self.is_whole = False
        self.is_broken = False

    async def before_first_byte(self) -> None:
        """Hold back, or break the connection, as faults of `after_tokens` 0 say."""
        if (delay := self._disruption.fault(FaultKind.DELAY_HEADERS)) is not None:
            await asyncio.sleep(delay.seconds)
        await self._stall_at(0)
        end = self._disruption.fault(FaultKind.RESET, FaultKind.HANG_UP)
        if end is not None and end.after_tokens == 0:
            self._break(end)

    async def pass_time(self, tokens: int, token_seconds: float, *, is_endless: bool) -> None:
        """Take the time that the reply takes. It is given whole: nothing of it is sent before its end."""
        pace = self._disruption.fault(FaultKind.PACE)
        seconds = tokens * (pace.seconds if pace is not None else token_seconds)
        if seconds:
            await asyncio.sleep(seconds)
        stall = self._disruption.armed(FaultKind.STALL)
        if stall is not None and stall.fault.after_tokens > 0:
            await self.stall(stall)
        if is_endless:
            await asyncio.Event().wait()

    async def whole(self, reply: Reply) -> web.StreamResponse:
        headers = dict(reply.headers)
        if reply.content_type is not None:
            headers["Content-Type"] = reply.content_type
        end = self._disruption.fault(FaultKind.RESET, FaultKind.HANG_UP)
        if end is not None or self._disruption.fault(FaultKind.SPLIT) is not None:
            return await self._whole_in_pieces(reply, headers, end)
        response = web.Response(status=reply.status, body=reply.body, headers=headers)
        if reply.content_type is None:
            # aiohttp would call an empty body an octet stream; Ollama calls it nothing.
            response.headers.popall("Content-Type", None)
            response.body = None
        if reply.is_chunked or len(reply.body) > _BUFFER_BEFORE_CHUNKING:
            _enable_chunks(self._request, response)
        self.is_whole = True
        return response

    async def flood(self, fault: Fault) -> web.StreamResponse:
        """A reply that is made while it is sent: here it costs no more than a piece of it."""
        begin, again, end = (part.encode() for part in (fault.body or _NOTHING_AGAIN).split("…"))
        response = web.StreamResponse(status=fault.reply_status, headers={"Content-Type": JSON})
        _enable_chunks(self._request, response)
        await response.prepare(self._request)
        await response.write(begin)
        left, at_once = fault.amount, max(1, _FLOOD_BYTES // len(again))
        piece = again * at_once
        while left > 0:
            await response.write(piece if left >= at_once else again * left)
            left -= at_once
        await response.write_eof(end)
        self.is_whole = True
        return response

    async def _whole_in_pieces(self, reply: Reply, headers: dict[str, str], end: Fault | None) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status, headers=headers)
        if reply.is_chunked or len(reply.body) > _BUFFER_BEFORE_CHUNKING:
            _enable_chunks(self._request, response)
        else:
            response.content_length = len(reply.body)
        await response.prepare(self._request)
        await self._write(response, reply.body[: len(reply.body) // 2] if end is not None else reply.body)
        if end is not None:
            self._break(end)
        await response.write_eof()
        self.is_whole = True
        return response

    async def stream(self, stream: Stream) -> web.StreamResponse:
        headers = {"Content-Type": stream.content_type, **stream.headers}
        response = web.StreamResponse(headers=headers)
        _enable_chunks(self._request, response)
        await response.prepare(self._request)
        if self._is_at_once(stream):
            await response.write_eof(b"".join(stream.frames) + stream.closing())
            self.is_whole = True
            return response
        if await self._write_frames(response, stream):
            await self._write(response, stream.closing())
            await response.write_eof()
            self.is_whole = True
        else:
            await response.write_eof()
        return response

    def _is_at_once(self, stream: Stream) -> bool:
        """Whether nothing but the writing takes time, and one write is as good as many."""
        takes_time = stream.token_seconds or stream.is_endless or stream.end is not None or stream.interlude is not None
        return not self._disruption and not takes_time and not self._flush_each_token

    async def search(self, seconds: float) -> None:
        """Take the time of a web search. Raises ReplyError when it fails."""
        if seconds:
            await asyncio.sleep(seconds)
        if (stall := self._disruption.armed(FaultKind.SEARCH_STALL)) is not None:
            await self.stall(stall)
        if (failure := self._disruption.fault(FaultKind.SEARCH_ERROR)) is not None:
            raise ReplyError(failure.reply_status, failure.reply_message)

    async def _write_frames(self, response: web.StreamResponse, stream: Stream) -> bool:
        """Send the frames; whether all of them were sent, so that the end may follow."""
        pace = self._disruption.fault(FaultKind.PACE)
        seconds = pace.seconds if pace is not None else stream.token_seconds
        if stream.is_endless and not seconds:
            seconds = 0.001  # an endless answer that costs no time would take the whole machine
        merge = self._disruption.fault(FaultKind.MERGE)
        merged_objects = merge.amount if merge is not None else 1
        end = stream.end or self._disruption.fault(*_ENDS)
        due = time.monotonic()
        waiting: list[bytes] = []
        for index, frame in enumerate(stream.frames):
            if end is not None and index == end.after_tokens:
                await self._write(response, b"".join(waiting))
                return await self._end_early(response, stream, end, frame)
            await self._stall_at(index)
            if seconds:
                due += seconds
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            if (hang := stream.hang()) is not None:
                await self._write(response, b"".join(waiting))
                waiting.clear()
                await self.stall(hang)
            if stream.is_cut():
                await self._write(response, b"".join(waiting))
                return await self._end_early(response, stream, Fault(kind=FaultKind.RUNNER_KILLED), frame)
            waiting.append(frame)
            interlude = stream.interlude if index == 0 else None
            if len(waiting) >= merged_objects or interlude is not None:
                await self._write(response, b"".join(waiting))
                waiting.clear()
            if interlude is not None and (ending := await interlude()):
                await self._write(response, ending)
                return False
        await self._write(response, b"".join(waiting))
        if end is not None:
            return await self._end_early(response, stream, end, b"\n")
        return True

    async def _end_early(self, response: web.StreamResponse, stream: Stream, end: Fault, frame: bytes) -> bool:
        match end.kind:
            case FaultKind.RUNNER_KILLED | FaultKind.ERROR_LINE | FaultKind.SEAT_LOST:
                await self._write(response, stream.broken(end.reply_message))
            case FaultKind.RESET:
                await self._write(response, frame[: len(frame) // 2])
                self._break(end)
            case FaultKind.HANG_UP:
                self._break(end)
        return False

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        if not data:
            return
        split = self._disruption.fault(FaultKind.SPLIT)
        if split is None:
            await response.write(data)
            return
        for start in range(0, len(data), split.amount):
            await response.write(data[start : start + split.amount])
            # A reader in the same loop gets its turn, so that it sees each piece by itself.
            await asyncio.sleep(split.seconds)

    async def _stall_at(self, index: int) -> None:
        stall = self._disruption.armed(FaultKind.STALL)
        if stall is not None and stall.fault.after_tokens == index:
            await self.stall(stall)

    async def stall(self, stall: ArmedFault) -> None:
        """Say nothing until the fault is released."""
        self._observations.stalled += 1
        self._observations.changed()
        try:
            await stall.released()
        finally:
            self._observations.stalled -= 1
            self._observations.changed()

    def _break(self, end: Fault) -> None:
        """Close the connection without a terminating chunk: by a reset, or as a dying server's kernel does."""
        self.is_broken = True
        transport = self._request.transport
        if transport is not None:
            if end.kind is FaultKind.RESET:
                connection = transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
            else:
                transport.close()
        raise ConnectionBrokenError


def _enable_chunks(request: web.Request, response: web.StreamResponse) -> None:
    if request.version >= (1, 1):
        response.enable_chunked_encoding()
    else:
        # The end of the connection is that of the reply.
        response.force_close()
