"""What systemd is told about this process (sd_notify(3)), where it asks to be told."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

logger = logging.getLogger(__name__)


class Notifier:
    """Speaks to the service manager named by ``NOTIFY_SOCKET``; without that variable every call does nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        # "@" stands for the NUL byte of an abstract socket. Addresses of other families are not supported.
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = address.replace("@", "\0", 1) if address.startswith(("/", "@")) else None
        self.watchdog_seconds = _watchdog_seconds(environ) if self._address else None
        """After how much silence the manager restarts this process; None where it does not watch."""

    def ready(self, status: str) -> None:
        """The service can be used; ``status`` is the line that ``systemctl status`` shows."""
        self._tell(f"READY=1\nSTATUS={_one_line(status)}")

    def stopping(self, status: str) -> None:
        self._tell(f"STOPPING=1\nSTATUS={_one_line(status)}")

    async def feed_watchdog(self) -> None:
        """Ping at twice the rate that is asked for, until cancelled; returns at once where nobody watches.

        It runs in the event loop, so that the pings end when the loop hangs: that is their purpose.
        """
        if self.watchdog_seconds is None:
            return
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2)

    def _tell(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaking:
                speaking.setblocking(False)
                speaking.connect(self._address)
                speaking.send(message.encode())
        except OSError as failure:
            # A manager that does not listen is no reason to stop serving.
            logger.warning("systemd could not be told %r: %s", message, failure)


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    watched = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or int(microseconds) == 0 or watched != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000


def _one_line(text: str) -> str:
    return " ".join(text.split())
