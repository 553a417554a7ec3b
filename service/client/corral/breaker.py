"""Gives a rest to a backend that fails again and again: for a while nothing is sent to it.

closed ──threshold faults without a success──▶ open ──open_seconds, or back──▶ half-open ──success──▶ closed
                                                ▲                                  │
                                                └───────────── fault ──────────────┘

One call at a time may try it, which is its trial: any call when it is half-open, and while it is open one of which its
caller knows that none like it has failed. A success closes it at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts, times and one trial. Whoever reports a fault decides whose it is, and whether it counts.

    ``clock`` gives seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float], *, threshold: int = 5, open_seconds: float = 30.0) -> None:
        self._clock = clock
        self.threshold = threshold
        self.open_seconds = open_seconds
        self._faults = 0
        self._opened: float | None = None
        self._is_tried = False
        self._has_come_back = False

    @property
    def state(self) -> State:
        if self._opened is None:
            return State.CLOSED
        return State.OPEN if self._clock() < self._opened + self.open_seconds else State.HALF_OPEN

    @property
    def is_closed(self) -> bool:
        """Whether it lets everything through."""
        return self._opened is None

    @property
    def faults(self) -> int:
        """How many there have been since the last success."""
        return self._faults

    @property
    def rest_seconds(self) -> float:
        """How long nothing will be let through."""
        return 0.0 if self._opened is None else max(0.0, self._opened + self.open_seconds - self._clock())

    @property
    def lets_through(self) -> bool:
        """Whether any call may begin now: any when closed, none when open, one at a time when half-open."""
        return self._opened is None or (self.state is State.HALF_OPEN and not self._is_tried)

    @property
    def may_be_tried(self) -> bool:
        """Whether a call may begin now whose like has not failed: one at a time unless it is closed."""
        return self._opened is None or not self._is_tried

    def begin(self, *, at_once: bool = False) -> bool:
        """Ask leave to make a call, whose end is then to be reported. Returns whether there is leave.

        ``at_once``: its like has not failed, so that it need not wait until the breaker is half-open. A call that
        begins while the breaker is not closed is its trial.
        """
        if not (self.may_be_tried if at_once else self.lets_through):
            return False
        self._is_tried = self._opened is not None
        return True

    def succeeded(self) -> None:
        """The backend did its part, whatever it thought of the request."""
        self._faults = 0
        self._opened = None
        self._is_tried = False
        self._has_come_back = False

    def failed(self, *, is_trial: bool = False) -> bool:
        """The backend was at fault. Returns whether the breaker has opened now.

        A call that is not the trial of a breaker that is not closed began before it opened, and tells nothing new.
        """
        if self._opened is None:
            self._faults += 1
            if self._faults < self.threshold:
                return False
        elif not is_trial:
            return False
        else:
            self._is_tried = False
            if self.state is State.OPEN:
                # A trial before its time: the rest goes on as it was.
                return False
            self._faults += 1
        self._opened = self._clock()
        return True

    def came_back(self) -> None:
        """The backend was away and answers again: its trouble may be over, and one call may find out at once.

        That is so once until the next success. A server that every job brings down comes back after each of them, and
        must not be given all waiting jobs one after another.
        """
        if self._opened is not None and not self._has_come_back:
            self._has_come_back = True
            self._opened = min(self._opened, self._clock() - self.open_seconds)

    def abandoned(self) -> None:
        """The trial ended without a word about the backend, for example by a cancellation: another may follow."""
        self._is_tried = False
