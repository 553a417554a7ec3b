"""When each model last had its turn on one backend, so that none of those that wait is passed over for ever."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from service.job import model_of_runner

_REMEMBERED_TURNS = 256


class Turns:
    """The latest turns, by model: with options of their own, jobs would be new ones each time."""

    __slots__ = ("_sent_at",)

    def __init__(self) -> None:
        self._sent_at: dict[str, int] = {}
        """The longest ago first."""

    def note(self, runner: str, now: int) -> None:
        """A job of this runner is sent."""
        model = model_of_runner(runner)
        self._sent_at.pop(model, None)
        self._sent_at[model] = now
        if len(self._sent_at) > _REMEMBERED_TURNS:
            del self._sent_at[next(iter(self._sent_at))]

    def longest_without(self, runners: Collection[str], waiting: Mapping[str, int]) -> str:
        """Of the runners, the one that has waited longest without a turn.

        ``waiting`` says since when the oldest job of each is ready.
        """
        return min(runners, key=lambda runner: self._without_since(runner, waiting))

    def by_seats(self, seats: Mapping[str, int], waiting: Mapping[str, int]) -> Callable[[str], tuple[int, int]]:
        """A key to sort runners by: the one with the fewest of these seats first, then the longest without a turn."""
        return lambda runner: (seats.get(runner, 0), self._without_since(runner, waiting))

    def _without_since(self, runner: str, waiting: Mapping[str, int]) -> int:
        # By the age of their jobs alone, two models with old backlogs would take turns for ever, before all others.
        return max(waiting[runner], self._sent_at.get(model_of_runner(runner), 0))
