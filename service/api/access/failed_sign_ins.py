"""Keys and tokens that nobody has, counted by address: how long each answer to one is held back.

Only such answers are: whoever shows a key that is known waits for nobody, also behind the address of one who guesses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from service.errors import LimitReachedError

_FIRST_SECONDS = 1.0
_LONGEST_SECONDS = 10.0
MOST_HELD = 20
"""Answers of one address that are held back at a time."""
_FORGOTTEN_SECONDS = 600.0
"""After so long without another an address begins anew."""
_MOST_ADDRESSES = 4096
"""That are remembered. Those of which answers are held back may be more, up to the number of connections."""


class _Failures:
    __slots__ = ("held", "last_at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        """How long the next answer is held back."""
        self.held = 0
        self.last_at = 0.0


class FailedSignIns:
    """The addresses from which unknown keys came."""

    def __init__(self) -> None:
        self.first_seconds = _FIRST_SECONDS
        """How long the first answer to an address is held back, and the next twice as long; 0 holds back none."""
        self._by_address: dict[str, _Failures] = {}
        """Whoever failed last stands last."""

    def __len__(self) -> int:
        return len(self._by_address)

    @property
    def held_now(self) -> int:
        """How many answers are held back, to all addresses."""
        return sum(failures.held for failures in self._by_address.values())

    @contextmanager
    def held(self, address: str, now: float) -> Iterator[float]:
        """Count one more, whose answer takes one of the address's places while this lasts, which should be so many
        seconds. ``now`` is of the same clock each time, in seconds. Raises LimitReachedError when no place is left.
        """
        found = self._found(address, now)
        if found.held >= MOST_HELD:
            raise LimitReachedError(
                f"{MOST_HELD} keys that nobody has were sent from this address just now; their answers are held back",
                _LONGEST_SECONDS,
            )
        seconds = found.seconds
        found.seconds = min(2 * seconds, _LONGEST_SECONDS)
        found.held += 1
        try:
            yield seconds
        finally:
            found.held -= 1

    def _found(self, address: str, now: float) -> _Failures:
        found = self._by_address.pop(address, None)
        if found is None or (not found.held and now - found.last_at > _FORGOTTEN_SECONDS):
            found = _Failures(self.first_seconds)
        self._by_address[address] = found
        found.last_at = now
        if len(self._by_address) > _MOST_ADDRESSES:
            self._forget_oldest()
        return found

    def _forget_oldest(self) -> None:
        for address, failures in self._by_address.items():
            if not failures.held:
                del self._by_address[address]
                return


FAILED_SIGN_INS = web.AppKey("failed_sign_ins", FailedSignIns)
