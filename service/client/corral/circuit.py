"""The client's circuit breaker: what counts, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from corral.breaker import Breaker, State
from corral.errors import (
    CallTimeoutError,
    CircuitOpenError,
    ConnectionFailedError,
    CorralError,
    ResponseError,
    StreamBrokenError,
)
from corral.logs import log
from corral.settings import Settings

_WORDS = {State.CLOSED: "CLOSED", State.OPEN: "OPEN", State.HALF_OPEN: "HALF-OPEN"}
_BUSY = 503
"""The server is there and has no time: that is no failure of it."""


def counts_as_failure(error: CorralError) -> bool:
    """Whether the server is at fault: it is away, silent, broken or failing."""
    if isinstance(error, ResponseError):
        return error.status_code < 400 or (error.status_code >= 500 and error.status_code != _BUSY)
    return isinstance(error, ConnectionFailedError | CallTimeoutError | StreamBrokenError)


class Attempt:
    """Leave to try once; its outcome is to be told, and counts once."""

    def __init__(self, circuit: Circuit, openings: int, request_id: str, *, is_trial: bool) -> None:
        self._circuit = circuit
        self._openings = openings
        self._request_id = request_id
        self.is_trial = is_trial
        self._is_told = False

    def succeeded(self) -> None:
        """The server has done its part."""
        if not self._is_told:
            self._is_told = True
            self._circuit.succeeded(self._request_id)

    def ended_by(self, error: BaseException) -> None:
        """What is no failure of the server's decides nothing, as a cancellation."""
        if not isinstance(error, CorralError) or not counts_as_failure(error):
            self.decided_nothing()
        elif not self._is_told:
            self._is_told = True
            self._circuit.failed(self._openings, self._request_id, is_trial=self.is_trial)

    def decided_nothing(self) -> None:
        """It says neither that the server is well nor that it is not."""
        if not self._is_told:
            self._is_told = True
            if self.is_trial:
                self._circuit.abandoned(self._openings)


class Circuit:
    """A breaker with the client's living settings. ``clock`` gives seconds that never go back."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._breaker = Breaker(clock)
        self._lock = Lock()
        self._openings = 0
        """How often it has opened: an attempt that was begun before the last opening tells nothing new."""

    @property
    def state(self) -> str:
        with self._lock:
            return _WORDS[self._current().state]

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._breaker.faults

    @property
    def is_open(self) -> bool:
        with self._lock:
            return self._current().state is State.OPEN

    @property
    def is_closed(self) -> bool:
        with self._lock:
            return self._current().is_closed

    def begin(self, request_id: str) -> Attempt:
        """Leave for this call. Raises CircuitOpenError while the server is left alone, and while another call is the
        trial.
        """
        with self._lock:
            breaker = self._current()
            has_leave, seconds = breaker.begin(), breaker.rest_seconds
            attempt = Attempt(self, self._openings, request_id, is_trial=not breaker.is_closed)
        if not has_leave:
            raise CircuitOpenError(
                f"the server has failed {self.failures} times in a row and is left alone"
                + (f" for another {seconds:.1f} s" if seconds else " until a trial has shown that it is back")
                + "; look whether it runs",
                seconds,
            )
        if attempt.is_trial:
            log.debug("[%s] the circuit is HALF-OPEN: this is the trial", request_id)
        return attempt

    def succeeded(self, request_id: str) -> None:
        with self._lock:
            was_closed = self._breaker.is_closed
            self._breaker.succeeded()
        if not was_closed:
            log.debug("[%s] the circuit is CLOSED", request_id)

    def failed(self, openings: int, request_id: str, *, is_trial: bool) -> None:
        """An attempt failed that was begun after so many openings."""
        with self._lock:
            is_opened = openings == self._openings and self._current().failed(is_trial=is_trial)
            self._openings += is_opened
        if is_opened:
            seconds = self._settings.circuit_timeout
            log.debug("[%s] the circuit is OPEN for %g s, after %d failures", request_id, seconds, self.failures)

    def abandoned(self, openings: int) -> None:
        """A trial ended that was begun after so many openings, without a word about the server."""
        with self._lock:
            if openings == self._openings:
                self._breaker.abandoned()

    def _current(self) -> Breaker:
        self._breaker.threshold = self._settings.failure_threshold
        self._breaker.open_seconds = self._settings.circuit_timeout
        return self._breaker
