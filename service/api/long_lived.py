"""Everybody who stays: long polls, event streams and websockets, to be sent away when the service stops, and those with
a key when that is revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from service.key import Key


class _Seat(NamedTuple):
    key: Callable[[], Key | None]
    """Whose key opened it, as things are now."""
    lose_key: Callable[[], object]


class LongLived:
    """Who is to be told that the service stops, or that its key is good no more."""

    def __init__(self) -> None:
        self._seats: dict[Callable[[], None], _Seat] = {}
        self.is_dismissed = False

    def __len__(self) -> int:
        return len(self._seats)

    @contextmanager
    def seated(
        self,
        leave: Callable[[], None],
        key: Callable[[], Key | None] = lambda: None,
        lose_key: Callable[[], object] | None = None,
    ) -> Iterator[None]:
        """Have ``leave`` called when the service stops, and ``lose_key`` (else ``leave``) when its key is revoked; they
        must return at once.
        """
        self._seats[leave] = _Seat(key, lose_key or leave)
        try:
            if self.is_dismissed:
                leave()
            yield
        finally:
            del self._seats[leave]

    def dismiss(self) -> None:
        """Send everybody away, now and from now on."""
        self.is_dismissed = True
        for leave in tuple(self._seats):
            leave()

    def dismiss_holders(self, is_good: Callable[[Key], bool]) -> None:
        """Send those away whose key is not good."""
        for seat in tuple(self._seats.values()):
            key = seat.key()
            if key is not None and not is_good(key):
                seat.lose_key()
