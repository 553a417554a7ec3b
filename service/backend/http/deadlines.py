"""The time limits of one call to a backend, kept by one timer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from service.backend.http.connection import Connection
from service.errors import BackendError, Fault

_SECOND_LOOK_SECONDS = 0.05
_LATE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long the parts of a call may take, in seconds; None: as long as the attempt."""

    connect: float = 5.0
    first_byte: float | None = 600.0
    """From the start of the call until the headers, which Ollama sends with the first token: queue, load and prompt."""
    stall: float | None = 120.0
    """Between two pieces of the body, while one is waited for."""
    attempt: float = 3600.0

    def for_whole_reply(self) -> Deadlines:
        """The limits of a reply that is asked for whole: it is silent until it is done."""
        return replace(self, first_byte=None, stall=None)


class DeadlineWatch:
    """Ends a call that takes too long.

    The timer is set once and looks, when it fires, at how far the call has come; progress costs nothing. A time that
    has run out is looked at twice: where timers run before input (uvloop), or after a pause of the whole process, bytes
    may have arrived that nobody has seen.
    """

    __slots__ = (
        "_armed_for",
        "_backend",
        "_connection",
        "_handle",
        "_is_second_look",
        "_limits",
        "_loop",
        "_seen_bytes",
        "_started",
        "_waiting_since",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Deadlines,
        backend: str,
        connection: Connection,
        started: float,
    ) -> None:
        """``started`` is the loop's time from which the call counts."""
        self._loop = loop
        self._limits = limits
        self._backend = backend
        self._connection = connection
        self._started = started
        self._waiting_since: float | None = None
        self._seen_bytes = 0
        self._is_second_look = False
        self._arm(started + min(limits.first_byte or limits.attempt, limits.stall or limits.attempt, limits.attempt))

    def begin_wait(self) -> None:
        """The next piece of the body is waited for."""
        self._waiting_since = self._loop.time()
        self._seen_bytes = self._connection.received_bytes

    def end_wait(self) -> None:
        """A piece has come. What its reader does with it is not the backend's time."""
        self._waiting_since = None

    def stop(self) -> None:
        self._handle.cancel()

    def _arm(self, when: float) -> None:
        self._armed_for = when
        self._handle = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        due = self._due(now)
        if due > now:
            self._is_second_look = False
            self._arm(due)
        elif self._is_second_look and now - self._armed_for < _LATE_SECONDS:
            self._connection.fail(self._overdue(now))
        else:
            self._is_second_look = True
            self._arm(now + _SECOND_LOOK_SECONDS)

    def _due(self, now: float) -> float:
        limits = self._limits
        ceiling = self._started + limits.attempt
        if not self._connection.incoming.has_head:
            return ceiling if limits.first_byte is None else min(ceiling, self._started + limits.first_byte)
        if limits.stall is None:
            return ceiling
        if self._waiting_since is None:
            return min(ceiling, now + limits.stall)
        received = self._connection.received_bytes
        if received > self._seen_bytes:
            # Something has come, even if nothing of the body: the wait begins anew.
            self._seen_bytes = received
            self._waiting_since = now
        return min(ceiling, self._waiting_since + limits.stall)

    def _overdue(self, now: float) -> BackendError:
        limits = self._limits
        if now >= self._started + limits.attempt:
            # The same request would run as long again, in a seat that others wait for.
            return BackendError(
                f"{self._backend} had not finished after {limits.attempt:g} s, the limit of an attempt",
                code="attempt_timeout",
                fault=Fault.PERMANENT,
            )
        if not self._connection.incoming.has_head:
            return BackendError(
                f"{self._backend} sent nothing for {limits.first_byte:g} s",
                code="first_byte_timeout",
                fault=Fault.TRANSIENT,
            )
        return BackendError(
            f"{self._backend} stopped sending for {limits.stall:g} s in the middle of its reply",
            code="stalled",
            fault=Fault.TRANSIENT,
        )
