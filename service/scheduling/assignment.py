"""A job that this process works on, and the backend on which it has a seat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from service.backend.breakers import NO_TRIAL, Trial
from service.backend.pool import Backend
from service.job import Claimed
from service.live.outputs import Output
from service.live.relay import Relay
from service.queue.backlog import Pick


class Running:
    """A job that this process is working on.

    The core makes it, and it alone sets its fields; but for ``stop``, which the attempt sets.
    """

    __slots__ = ("is_cancelled", "job", "output", "pick", "relay", "request", "stop", "stored")

    def __init__(self, claimed: Claimed, output: Output, pick: Pick, relay: Relay | None = None) -> None:
        self.job = claimed.job
        """Its row at the claim. Set again when a row that is stored meanwhile is given its number."""
        self.request = claimed.request
        self.output = output
        """Made for this attempt, which alone fills it; the core closes it."""
        self.pick = pick
        """Its turn, and what was charged for it."""
        self.is_cancelled = False
        """Its row is final, gone, or another attempt's. Set by :meth:`call_off`, and never taken back."""
        self.relay = relay
        """Where a waiting caller reads the reply."""
        self.stored: asyncio.Future[None] | None = None
        """Done when the row is on disk, and failed when it cannot be. Set before the hand-off, where the attempt begins
        before its row is on disk.
        """
        self.stop: Callable[[], object] | None = None
        """Ends the call to the backend. Set by the attempt, from its beginning to the end of its call."""

    def call_off(self) -> None:
        """Nothing is to come of this attempt any more: end its call, or let it not begin."""
        self.is_cancelled = True
        if self.stop is not None:
            self.stop()


class Assignment(NamedTuple):
    """A running job, the backend on which it has a seat, and what it is the trial of there."""

    running: Running
    backend: Backend
    trial: Trial = NO_TRIAL
