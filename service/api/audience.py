"""Everybody who stays: long polls, event streams and websockets, all to be sent away when the service stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Audience:
    """Who is to be told that the service stops."""

    def __init__(self) -> None:
        self._leavers: dict[Callable[[], None], None] = {}
        self.is_dismissed = False

    @contextmanager
    def seated(self, leave: Callable[[], None]) -> Iterator[None]:
        """Have ``leave`` called when the service stops; it must return at once."""
        self._leavers[leave] = None
        try:
            if self.is_dismissed:
                leave()
            yield
        finally:
            del self._leavers[leave]

    def dismiss(self) -> None:
        """Send everybody away, now and from now on."""
        self.is_dismissed = True
        for leave in tuple(self._leavers):
            leave()
