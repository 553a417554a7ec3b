"""A job that this process works on, and the backend on which it has a seat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from service.backend.pool import Backend
from service.job import Claimed
from service.live.outputs import Output
from service.live.relay import Relay


class Running:
    """A job that this process is working on."""

    __slots__ = ("charged_ms", "is_cancelled", "job", "output", "relay", "request", "stop", "stored")

    def __init__(self, claimed: Claimed, output: Output, charged_ms: float, relay: Relay | None = None) -> None:
        self.job = claimed.job
        self.request = claimed.request
        self.output = output
        self.charged_ms = charged_ms
        self.is_cancelled = False
        self.relay = relay
        """Where a waiting caller reads the reply."""
        self.stored: asyncio.Future[None] | None = None
        """Set where the attempt began before its row was on disk: done when it is, and failed when it cannot be."""
        self.stop: Callable[[], object] | None = None
        """Set by the worker that has it: ends the attempt and closes the connection to the backend."""


class Assignment(NamedTuple):
    """A running job and the backend on which it has a seat."""

    running: Running
    backend: Backend
