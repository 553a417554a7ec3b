"""How long an attempt may wait for the first byte of its reply."""

from __future__ import annotations

from collections.abc import Callable

from service.backend.backend import Backend
from service.backend.calls import Call
from service.backend.http.deadlines import silent_too_long
from service.backend.placement import is_remote
from service.clock import Clock
from service.config import TimeoutsConfig
from service.errors import BackendError
from service.job import model_of_runner


class FirstByte:
    """The patience of one call: as long as a load may take, and from the moment when the model is known to be loaded,
    as long as its prompt.

    The limit does not run while a call that was sent before to the same runner is at work: with fewer slots than seats
    this one waits for it inside Ollama.

    A call that asks for a whole reply is silent until that is done: ``tell_silent`` is called once, when a loaded model
    has been silent for that long, and the call goes on.
    """

    def __init__(
        self,
        backend: Backend,
        call: Call,
        size: int,
        timeouts: TimeoutsConfig,
        clock: Clock,
        tell_silent: Callable[[], object] | None = None,
    ) -> None:
        """``size`` is that of the request's body, in bytes; ``tell_silent`` is None for a stream."""
        self._backend = backend
        self._call = call
        self._runner = call.runner
        self._size = size
        self._timeouts = timeouts
        self._clock = clock
        self._tell_silent = tell_silent
        self._is_told = False
        self._was_loaded = self._is_loaded()
        self._since: float | None = None
        """The loop's time from which the present limit counts."""

    def due(self, now: float) -> float:
        """Until when nothing need come, as the model stands now; both are times of the loop."""
        if self._is_told:
            return float("inf")
        freed = self._freed_at(now)
        if freed is not None:
            return freed + self._timeouts.first_byte_cold_seconds
        is_loaded = self._is_loaded()
        if self._since is None or is_loaded != self._was_loaded:
            self._since = now - (self._loaded_for_seconds() if is_loaded and not self._was_loaded else 0.0)
            self._was_loaded = is_loaded
            # No call ends by this: it is asked again first, and only then need the others be looked at.
            return self._since + self._limit_seconds()
        now_ms = self._clock.now_ms()
        free_since = self._call.free_since(now_ms, self._timeouts.stall_seconds * 1000)
        if free_since is None:
            return now + self._limit_seconds()
        return max(self._since, now - (now_ms - free_since) / 1000) + self._limit_seconds()

    def _freed_at(self, now: float) -> float | None:
        """For a load that is sent beside answers that run: when the last of them ended, or now while one runs. None for
        any other.
        """
        hold = self._backend.placement.holds.hold
        if hold is None or hold.asked != self._runner:
            return None
        if hold.freed_at is None:
            return now
        return now - max(0.0, (self._clock.now_ms() - hold.freed_at) / 1000)

    def run_out(self) -> BackendError | None:
        """That time is over: what ends the call, None for one that goes on."""
        is_held_for = self._freed_at(0.0) is not None
        if self._tell_silent is None or is_held_for:
            # While its load is waited for everybody else waits too, also for one that asks for a whole reply.
            return silent_too_long(self._words())
        self._call.late_at = self._clock.now_ms()
        if self._was_loaded:
            self._is_told = True
            self._tell_silent()
        else:
            self._since = None
        return None

    def _is_loaded(self) -> bool:
        placement = self._backend.placement
        return is_remote(self._runner, placement.remote) or placement.is_loaded(self._runner)

    def _loaded_for_seconds(self) -> float:
        """How long ago the model came to be loaded, which is noticed when the limit of its load is over."""
        placement = self._backend.placement
        residence = placement.residences.get(placement.own(self._runner))
        if residence is None or residence.loaded_at is None:
            return 0.0
        return max(0.0, (self._clock.now_ms() - residence.loaded_at) / 1000)

    def _limit_seconds(self) -> float:
        timeouts = self._timeouts
        if not self._was_loaded:
            return timeouts.first_byte_cold_seconds
        if self._tell_silent is not None:
            # A whole reply takes as long as its answer, of which the prompt's rate says nothing.
            return timeouts.first_byte_resident_seconds
        model = model_of_runner(self._runner)
        rates = self._backend.work.prompt_rates
        return rates.limit_seconds(model, self._size, timeouts.first_byte_resident_seconds)

    def _words(self) -> str:
        limit, name = self._limit_seconds(), self._backend.name
        if not self._was_loaded:
            setting = "timeouts.first_byte_cold_seconds"
        elif limit < self._timeouts.first_byte_resident_seconds:
            setting = (
                f"ten times what the model's rate says of {self._size} bytes; timeouts.first_byte_resident_seconds"
            )
        else:
            setting = "timeouts.first_byte_resident_seconds"
        return f"{name} sent nothing for {limit:g} s ({setting})"
