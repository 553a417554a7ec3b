"""Small writes that go out together, at the end of the loop's turn in which they were made.

A write to a peer on this machine that waits for it wakes it up, which costs more than all else about it. Made right
behind one another they find it awake: polls from 64 connections went from 0.66 to 0.83 of a bare echo.
"""

from __future__ import annotations

import asyncio
import logging

_log = logging.getLogger(__name__)


class Sending:
    """Only for what nobody will follow up or close the transport behind before the loop's next turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []

    def send(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write at the end of this turn, unless the transport is being closed then."""
        if not self._waiting:
            self._loop.call_soon(self._send_all)
        self._waiting.append((transport, data))

    def _send_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if transport.is_closing():
                continue
            try:
                transport.write(data)
            except Exception as error:
                # It costs this peer only.
                _log.error("a connection could not be written to", exc_info=error)
                transport.abort()
