"""Connections that stay open: long polls, event streams and websockets.

They are told to end when the service stops, and when the key that opened them is revoked. Of long polls and event
streams each owner has a bounded number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from service.errors import LimitReachedError
from service.key import Key


class _Seat(NamedTuple):
    key: Callable[[], Key | None]
    """Says which key the connection has; a websocket's may change."""
    lose_key: Callable[[], object]


MOST_WAITS = 1_000
"""Long polls and event streams of one owner."""
_RETRY_SECONDS = 5.0


class LongLived:
    """All connections that stay open, each with what ends it."""

    def __init__(self) -> None:
        self._waits: dict[str, int] = {}
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
        """Have ``leave`` called when the service stops, and ``lose_key``, or else ``leave``, when the key is revoked.
        Both must return at once.
        """
        self._seats[leave] = _Seat(key, lose_key or leave)
        try:
            if self.is_dismissed:
                leave()
            yield
        finally:
            del self._seats[leave]

    @contextmanager
    def waiting(self, owner: str) -> Iterator[None]:
        """Count a long poll or an event stream of this owner. Raises LimitReachedError when it has too many."""
        waits = self._waits.get(owner, 0)
        if waits >= MOST_WAITS:
            raise LimitReachedError(
                f"{waits} long polls and event streams of yours are open, which is the most that may; end some",
                _RETRY_SECONDS,
            )
        self._waits[owner] = waits + 1
        try:
            yield
        finally:
            left = self._waits[owner] - 1
            if left:
                self._waits[owner] = left
            else:
                del self._waits[owner]

    def waits_of(self, owner: str) -> int:
        """How many long polls and event streams an owner has."""
        return self._waits.get(owner, 0)

    def dismiss(self) -> None:
        """End all of them, and from now on every one that comes."""
        self.is_dismissed = True
        for leave in tuple(self._seats):
            leave()

    def dismiss_holders(self, is_good: Callable[[Key], bool]) -> None:
        """End those whose key is no longer good."""
        for seat in tuple(self._seats.values()):
            key = seat.key()
            if key is not None and not is_good(key):
                seat.lose_key()
