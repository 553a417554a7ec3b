"""The one clock of the service."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache


class Clock:
    """Milliseconds since the epoch that never run backwards.

    The wall's time at the start plus a monotonic clock that counts suspends (CLOCK_BOOTTIME where it exists), and never
    behind a time that is stored already: a wall clock set back an hour changes nothing.
    """

    def __init__(self) -> None:
        self._origin_ms = time.time() * 1000 - _elapsed_ms()

    def now_ms(self) -> int:
        """The present, in milliseconds since the epoch."""
        return int(self._origin_ms + _clock_gettime(_CLOCK) * 1000)

    def not_before(self, stored_ms: int) -> None:
        """Move forward to ``stored_ms`` (milliseconds since the epoch) when the clock is behind it."""
        self._origin_ms += max(0.0, stored_ms - (self._origin_ms + _elapsed_ms()))


_clock_gettime = time.clock_gettime
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _elapsed_ms() -> float:
    return _clock_gettime(_CLOCK) * 1000


def moment(milliseconds: int, zone: str = "+00:00") -> str:
    """Milliseconds since the epoch as RFC 3339, in UTC: ``2026-11-20T10:10:19.960+00:00``. Before 3.11 Python's
    ``fromisoformat`` does not read a ``Z``, which is the same ``zone``.
    """
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}{zone}"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def zulu(milliseconds: int) -> str:
    """The same as everything outside ``/api/v1/`` writes it: ``2026-11-20T10:10:19.960Z``."""
    return moment(milliseconds, "Z")


def zulu_or_none(milliseconds: int | None) -> str | None:
    """The same, where there is such a moment."""
    return None if milliseconds is None else zulu(milliseconds)
