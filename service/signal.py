"""Tells those above of something that has happened below, without knowing them."""

from __future__ import annotations

from collections.abc import Callable


class Signal:
    """Callables that are called, in the order in which they were connected, each time the signal is sent."""

    __slots__ = ("_receivers",)

    def __init__(self) -> None:
        self._receivers: list[Callable[[], object]] = []

    def connect(self, receiver: Callable[[], object]) -> None:
        """From now on ``receiver`` is called as well; it must return at once and never raise."""
        self._receivers.append(receiver)

    def send(self) -> None:
        for receiver in self._receivers:
            receiver()
