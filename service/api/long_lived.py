"""Connections that stay open: long polls, event streams and websockets.

They are told to end when the service stops, and when the key that opened them is revoked. So are calls that are relayed
past the queue, but for a stop. Of long polls and event streams each owner has a bounded number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from service.errors import LimitReachedError
from service.key import Key


class _Seat(NamedTuple):
    leave: Callable[[], object]
    key: Callable[[], Key | None]
    """Says which key the connection has; a websocket's may change."""
    lose_key: Callable[[], object]


MOST_WAITS = 1_000
"""Long polls and event streams of one owner."""
_RETRY_SECONDS = 5.0


class LongLived:
    """All connections that stay open, each with what ends it. ``is_good`` says whether a key may be used now."""

    def __init__(self, is_good: Callable[[Key], bool]) -> None:
        self._is_good = is_good
        self._waits: dict[str, int] = {}
        self._seats: dict[_Seat, None] = {}
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
        """Have ``leave`` called when the service stops, and ``lose_key``, or else ``leave``, when the key is revoked:
        at once where that was before. Both must return at once.
        """
        with self._taken(_Seat(leave, key, lose_key or leave)):
            if self.is_dismissed:
                leave()
            yield

    @contextmanager
    def relayed(self, key: Key | None, lose_key: Callable[[], object]) -> Iterator[None]:
        """Have ``lose_key`` called when the key is revoked, at once where that was before. At a stop, the call may come
        to its end.
        """
        with self._taken(_Seat(_go_on, lambda: key, lose_key)):
            yield

    @contextmanager
    def _taken(self, seat: _Seat) -> Iterator[None]:
        self._seats[seat] = None
        try:
            self._dismiss_without_key(seat)
            yield
        finally:
            del self._seats[seat]

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
        for seat in tuple(self._seats):
            seat.leave()

    def dismiss_holders(self) -> None:
        """End those whose key is no longer good."""
        for seat in tuple(self._seats):
            self._dismiss_without_key(seat)

    def _dismiss_without_key(self, seat: _Seat) -> None:
        key = seat.key()
        if key is not None and not self._is_good(key):
            seat.lose_key()


def _go_on() -> None:
    """A stop ends nothing that is relayed."""
