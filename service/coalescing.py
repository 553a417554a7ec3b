"""Small writes that go out together, at the end of the loop's turn in which they were made. Of a transport they need
``WriteTransport.write``, ``WriteTransport.is_closing`` and ``WriteTransport.abort``, past whoever else writes to it.

A write to a peer on this machine that waits for it wakes it up, which costs more than all else about it. Made right
behind one another they find it awake: polls from 64 connections went from 0.66 to 0.83 of a bare echo. Where there is
only one at a time, it goes out at once.
"""

from __future__ import annotations

import asyncio
import logging

_log = logging.getLogger(__name__)


class CoalescedWrites:
    """Only for what nobody will follow up or close the transport behind before the loop's next turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._in_turn = 0
        self._is_alone = False
        """Of the last turn with any writes: it had only one."""

    def send(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write at the end of this turn, unless the transport is being closed then; or at once, when such writes come
        one at a time.
        """
        self._in_turn += 1
        if self._in_turn == 1:
            self._loop.call_soon(self._end_turn)
            if self._is_alone:
                _write(transport, data)
                return
        self._waiting.append((transport, data))

    def _end_turn(self) -> None:
        self._is_alone, self._in_turn = self._in_turn == 1, 0
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for transport, data in waiting:
                _write(transport, data)


def _write(transport: asyncio.WriteTransport, data: bytes) -> None:
    if transport.is_closing():
        return
    try:
        transport.write(data)
    except Exception as error:
        # It costs this peer only.
        _log.error("a connection could not be written to", exc_info=error)
        transport.abort()
