"""One call to a backend: the head of its reply, and its body as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from types import TracebackType

from multidict import CIMultiDictProxy

from service.backend.classification import foreign_reply
from service.backend.http.connection import Connection, LostError
from service.backend.http.connections import Connections, Origin
from service.backend.http.deadlines import Deadlines, DeadlineWatch, Patience
from service.backend.http.incoming import NotHttpError
from service.connection_trouble import what_hinders
from service.errors import NOT_OLLAMA, BackendError, Fault

_PIECE_BYTES = 256 * 1024
"""A body up to this size goes out at once; a larger one in pieces, so that nobody else waits for tens of megabytes."""
_SMALL_REPLY_BYTES = 16 * 1024 * 1024
"""For errors, lists of models and the like."""
_STALE_SECONDS = 1.0
_MOST_TRIES = 4

_BODILESS = (b"GET ", b"HEAD ", b"OPTIONS ", b"TRACE ")
"""Methods whose requests have no body unless one is announced. With any other, some servers demand a length (411)."""

Body = bytes | AsyncIterable[bytes] | None


class Reply:
    """What Ollama answers to a call: its head, and its body as it arrives."""

    __slots__ = ("_backend", "_connection", "_watch", "content_type", "headers", "status")

    def __init__(
        self, connection: Connection, headers: CIMultiDictProxy[str], watch: DeadlineWatch, backend: str
    ) -> None:
        self._connection = connection
        self._watch = watch
        self._backend = backend
        self.status = connection.incoming.status
        self.headers = headers
        self.content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        """The media type without its parameters, in lower case; "" when there is none."""

    def chunks(self) -> Chunks:
        """The body in the pieces in which it arrives. Reading on raises BackendError when it stalls or breaks off."""
        return Chunks(self._connection, self._watch, self._backend)

    async def read(self, limit_bytes: int = _SMALL_REPLY_BYTES) -> bytes:
        """The whole body; for errors and other small replies. Raises BackendError, also for one beyond the limit, which
        no other attempt would make smaller.
        """
        pieces = []
        size = 0
        async for data in self.chunks():
            size += len(data)
            if size > limit_bytes:
                raise self.too_large(f"of more than {limit_bytes} bytes")
            pieces.append(data)
        return b"".join(pieces)

    def too_large(self, what: str) -> BackendError:
        """The error of this reply when it is more than is read; ``what`` says of what."""
        message = f"{self._backend} is not Ollama: it answered with a reply {what}"
        return BackendError(message, code=NOT_OLLAMA, fault=Fault.PERMANENT, status=self.status)


class Chunks:
    """The pieces of a body. Not a generator: one that is left early would be closed later, by a task of its own."""

    __slots__ = ("_backend", "_connection", "_watch")

    def __init__(self, connection: Connection, watch: DeadlineWatch, backend: str) -> None:
        self._connection = connection
        self._watch = watch
        self._backend = backend

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        connection = self._connection
        data = connection.take()
        if data:
            return data
        if not connection.incoming.is_whole:
            watch = self._watch
            watch.begin_wait()
            try:
                data = await connection.piece()
            except (LostError, NotHttpError) as problem:
                raise _lost(self._backend, problem) from problem
            watch.end_wait()
        if not data:
            raise StopAsyncIteration
        return data


class Call:
    """A call under way, as an asynchronous context manager. Leaving it before the body's end closes the connection."""

    __slots__ = (
        "_backend",
        "_body",
        "_connection",
        "_connections",
        "_head",
        "_limits",
        "_origin",
        "_patience",
        "_sending",
        "_watch",
        "written_at",
    )

    def __init__(
        self,
        connections: Connections,
        origin: Origin,
        backend: str,
        head: bytes,
        body: Body,
        limits: Deadlines,
        patience: Patience | None = None,
    ) -> None:
        self._connections = connections
        self._origin = origin
        self._backend = backend
        self._head = head
        self._body = body
        self._limits = limits
        self._patience = patience
        self.written_at: float | None = None
        """The loop's time when the request had been written whole; None until then."""
        self._sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Reply:
        # A kept connection that the server has closed fails at once, and that says nothing about the server. All that
        # are kept may have been closed together: the last try makes a new one.
        loop = asyncio.get_running_loop()
        started = loop.time()
        for tries_left in reversed(range(_MOST_TRIES)):
            began = loop.time()
            self._connection = connection = (self._kept() if tries_left else None) or await self._connect()
            self._watch = DeadlineWatch(loop, self._limits, self._backend, connection, started, self._patience)
            try:
                self._send(loop, connection)
                await connection.head()
                return self._reply(connection)
            except (LostError, NotHttpError) as problem:
                self._end()
                is_stale = connection.is_kept and not connection.received_bytes
                if not is_stale or loop.time() - began >= _STALE_SECONDS:
                    raise _failed(self._backend, problem) from problem
            except BaseException:
                self._end()
                raise
        raise AssertionError("a new connection is never stale")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _kept(self) -> Connection | None:
        # A body that comes in pieces can be sent only once: not over a connection that may have been closed unnoticed.
        return None if isinstance(self._body, AsyncIterable) else self._connections.kept(self._origin)

    async def _connect(self) -> Connection:
        limits = self._limits
        try:
            return await self._connections.connect(self._origin, min(limits.connect, limits.attempt))
        except TimeoutError as problem:
            raise _unreachable(f"{self._backend} did not accept a connection in time") from problem
        except (OSError, ValueError) as problem:
            raise _unreachable(f"{self._backend} cannot be reached: {what_hinders(problem)}") from problem

    def _reply(self, connection: Connection) -> Reply:
        headers = connection.incoming.headers
        assert headers is not None
        reply = Reply(connection, headers, self._watch, self._backend)
        foreign = foreign_reply(reply.status, reply.content_type)
        if foreign is not None:
            raise foreign
        return reply

    def _end(self) -> None:
        self._watch.stop()
        connection, sending = self._connection, self._sending
        is_sent = True
        if sending is not None:
            is_sent = sending.done()
            sending.cancel()
        if connection.is_reusable and is_sent:
            self._connections.keep(self._origin, connection)
        else:
            connection.close()
            connection.forget_error()

    def _send(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        body = self._body
        is_head_only = self._head.startswith(b"HEAD ")
        if body is None and not self._head.startswith(_BODILESS):
            body = b""
        if body is None:
            connection.send(self._head + b"\r\n", is_whole=True, is_head_only=is_head_only)
        elif isinstance(body, bytes):
            head = b"%bContent-Length: %d\r\n\r\n" % (self._head, len(body))
            if len(body) <= _PIECE_BYTES:
                connection.send(head + body, is_whole=True, is_head_only=is_head_only)
            else:
                connection.send(head, is_whole=False, is_head_only=is_head_only)
                self._sending = loop.create_task(_send_whole(connection, body))
                self._sending.add_done_callback(self._note_written)
                return
        else:
            head = self._head + b"Transfer-Encoding: chunked\r\n\r\n"
            connection.send(head, is_whole=False, is_head_only=is_head_only)
            self._sending = loop.create_task(_send_pieces(connection, body))
            self._sending.add_done_callback(self._note_written)
            return
        self.written_at = loop.time()

    def _note_written(self, sending: asyncio.Task[None]) -> None:
        if not sending.cancelled() and sending.exception() is None:
            self.written_at = sending.get_loop().time()


async def _send_whole(connection: Connection, body: bytes) -> None:
    view = memoryview(body)
    for start in range(0, len(body), _PIECE_BYTES):
        connection.write(view[start : start + _PIECE_BYTES])
        await connection.drain()


async def _send_pieces(connection: Connection, body: AsyncIterable[bytes]) -> None:
    """In the chunks of HTTP (RFC 9112, 7.1)."""
    try:
        async for piece in body:
            if piece:
                connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await connection.drain()
    except Exception as problem:
        # Whoever waits for the reply is told of it. The end is not sent, so that the server gets no whole request.
        connection.fail(LostError(f"what was to be sent broke off: {problem}"))
    else:
        connection.write(b"0\r\n\r\n")


def _unreachable(message: str) -> BackendError:
    return BackendError(message, code="connect_failed", fault=Fault.ABSENT)


def _failed(name: str, problem: Exception) -> BackendError:
    """What it means that no head of a reply came."""
    if isinstance(problem, NotHttpError):
        return not_ollama(name, "something that is not HTTP")
    return _lost(name, problem)


def _lost(name: str, problem: Exception) -> BackendError:
    return BackendError(
        f"the connection to {name} was lost: {problem}",
        code="connection_lost",
        fault=Fault.TRANSIENT,
    )


def not_ollama(name: str, what: str) -> BackendError:
    return BackendError(f"{name} is not Ollama: it answered with {what}", code=NOT_OLLAMA, fault=Fault.ABSENT)
