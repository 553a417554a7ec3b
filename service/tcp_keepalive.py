"""Having the kernel ask whether the other side of a connection is there: one whose machine is gone says no goodbye."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from typing import Protocol

IDLE_SECONDS = 60
"""The silence after which the other side is asked for the first time. Routers on the way forget a connection later."""
INTERVAL_SECONDS = 15
PROBES = 5
"""So many questions without an answer end the connection."""
_GONE_MS = (IDLE_SECONDS + PROBES * INTERVAL_SECONDS) * 1000

_OPTIONS = (
    ("TCP_KEEPIDLE", IDLE_SECONDS),
    # What macOS calls it.
    ("TCP_KEEPALIVE", IDLE_SECONDS),
    ("TCP_KEEPINTVL", INTERVAL_SECONDS),
    ("TCP_KEEPCNT", PROBES),
)
_UNANSWERED = struct.Struct("24xI28xI")
"""Of Linux's ``tcp_info``: how many segments are without an answer, and milliseconds since any answer came."""


class Socket(Protocol):
    """A socket, or what the transports of asyncio and uvloop show of theirs."""

    @property
    def family(self) -> int: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes: ...


def find_the_vanished(connection: Socket, *, must_read: bool = False) -> None:
    """Have a TCP connection end a little more than two minutes after its other side has vanished. Any other kind of
    socket stays as it is, and so does one that is closed already.

    TCP asks nobody to whom something is on its way, and gives up sending it after a quarter of an hour. ``must_read``
    ends that after the same time, where the system can; and also a connection whose other side is there, but takes
    nothing.
    """
    if not _is_tcp(connection):
        return
    # A system that lacks an option does without it.
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*_OPTIONS, ("TCP_USER_TIMEOUT", _GONE_MS)) if must_read else _OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            with suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


def has_vanished(connection: Socket) -> bool:
    """Whether something is on its way to the other side, and nothing was heard of it for as long as it would be asked
    otherwise: a stream's signs of life come more often than those questions. Who only reads nothing is heard of.

    Only Linux tells; elsewhere it is False.
    """
    if sys.platform != "linux" or not _is_tcp(connection):
        return False
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNANSWERED.size)
        unanswered, silent_ms = _UNANSWERED.unpack(told)
    except (OSError, struct.error):
        return False
    return bool(unanswered) and int(silent_ms) >= _GONE_MS


def _is_tcp(connection: Socket) -> bool:
    return connection.family in (socket.AF_INET, socket.AF_INET6)
