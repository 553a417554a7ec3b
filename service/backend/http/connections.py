"""The connections to all backends: made when they are needed, and kept for the next call.

Nothing private of a library is used. Unusual is that the socket is connected first (aiohappyeyeballs), and only then
given to a transport, which is the socket's owner from the moment when its TLS handshake begins.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import defaultdict
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import NamedTuple

from aiohappyeyeballs import start_connection

from service.backend.http.connection import Connection
from service.backend.http.incoming import check_parser
from service.coalescing import CoalescedWrites
from service.tcp_keepalive import find_the_vanished

_KEEP_SECONDS = 60.0
"""How long an idle connection is kept. Ollama itself never closes one; proxies before it do after about this time."""
_SECOND_ADDRESS_SECONDS = 0.25
"""When a name's next address is tried beside one that does not answer (RFC 8305, 5)."""
_CLOSING_SECONDS = 1.0


class Origin(NamedTuple):
    """Where a server listens."""

    host: str
    port: int
    is_tls: bool


class Connections:
    """To be used as ``async with Connections() as connections``. The backends' seats bound their number."""

    def __init__(self) -> None:
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None
        self._all_closed = asyncio.Event()
        self._is_closed = False

    async def __aenter__(self) -> Connections:
        self._loop = asyncio.get_running_loop()
        self._writes = CoalescedWrites(self._loop)
        check_parser()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in tuple(self._open):
            connection.close()
        if self._open:
            self._all_closed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSING_SECONDS):
                    await self._all_closed.wait()

    def kept(self, origin: Origin) -> Connection | None:
        """An idle connection, the one that was used last; None when there is none."""
        idle = self._idle[origin]
        while idle:
            connection = idle.pop()
            if not connection.is_closed:
                return connection
        return None

    def keep(self, origin: Origin, connection: Connection) -> None:
        """The exchange on this connection is over, and the next call may have it."""
        if connection.is_closed:
            return
        connection.is_kept = True
        connection.idle_since = self._loop.time()
        self._idle[origin].append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(_KEEP_SECONDS, self._close_old)

    async def connect(self, origin: Origin, seconds: float) -> Connection:
        """A new connection. Raises TimeoutError after so many seconds, and OSError when there is none to be had."""
        if self._is_closed:
            raise ConnectionError("the connections are closed")
        connection = Connection(self._loop, self._writes, partial(self._forget, origin))
        tls = self._tls_context() if origin.is_tls else None
        async with asyncio.timeout(seconds):
            addresses = await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            made = await start_connection(addresses, happy_eyeballs_delay=_SECOND_ADDRESS_SECONDS, loop=self._loop)
            _prepare(made)
            try:
                # The names in certificates have no dot at the end.
                name = origin.host.rstrip(".") if origin.is_tls else None
                await self._loop.create_connection(lambda: connection, sock=made, ssl=tls, server_hostname=name)
            except BaseException:
                # A transport owns the socket by now, and goes on with a handshake that nobody waits for any more. The
                # transport closes the socket itself: its number must not go to another connection before that.
                with suppress(OSError):
                    made.shutdown(socket.SHUT_RDWR)
                raise
        self._admit(connection)
        return connection

    def _admit(self, connection: Connection) -> None:
        if self._is_closed:
            connection.close()
        if not connection.is_closed:
            self._open.add(connection)

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _forget(self, origin: Origin, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle[origin]
        if connection in idle:
            idle.remove(connection)
        if not idle:
            del self._idle[origin]
        if not self._open:
            self._all_closed.set()

    def _close_old(self) -> None:
        self._sweep = None
        now = self._loop.time()
        for idle in tuple(self._idle.values()):
            while idle and idle[0].idle_since + _KEEP_SECONDS <= now:
                idle.pop(0).close()
        oldest = min((idle[0].idle_since for idle in self._idle.values() if idle), default=None)
        if oldest is not None:
            self._sweep = self._loop.call_at(oldest + _KEEP_SECONDS, self._close_old)


def _prepare(made: socket.socket) -> None:
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        made.close()
        raise
    # Connections are silent for minutes here, which says nothing of the server; but it reads what it is sent.
    find_the_vanished(made, must_read=True)
