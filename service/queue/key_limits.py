"""How many jobs of each key run, and which keys are at their limit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from service.job import Line
from service.key import key_of_owner


class KeyLimits:
    """Counts the running jobs of keys; ``limit_of`` gives a key's limit by its id, None for a key without one.

    All owners behind one key count together. Each process counts only its own jobs.
    """

    def __init__(self, limit_of: Callable[[str], int | None]) -> None:
        self._limit_of = limit_of
        self._running: dict[str, int] = {}
        self._full: set[str] = set()

    def may_run(self, owner: str) -> bool:
        """Whether one more job of this owner may begin now."""
        return not self._full or key_of_owner(owner) not in self._full

    def take(self, owner: str) -> None:
        """A job of this owner begins, or is about to."""
        key_id = key_of_owner(owner)
        if key_id is None:
            return
        running = self._running[key_id] = self._running.get(key_id, 0) + 1
        limit = self._limit_of(key_id)
        if limit is not None and running >= limit:
            self._full.add(key_id)

    def free(self, owner: str) -> bool:
        """A job of this owner has ended, or did not begin. True: its key was at its limit, and another may begin."""
        key_id = key_of_owner(owner)
        if key_id is None or key_id not in self._running:
            return False
        self._running[key_id] -= 1
        if self._running[key_id] == 0:
            del self._running[key_id]
        if key_id not in self._full:
            return False
        self._full.discard(key_id)
        return True

    def any_may_run(self, owners: Iterable[str]) -> bool:
        """Whether one of these owners may begin one more job now."""
        return any(map(self.may_run, owners))

    def held_lines(self, runner: str, waiting: Mapping[str, Mapping[int, int]]) -> Collection[Line]:
        """The lines of a runner whose jobs must wait for their key; ``waiting`` by owner and priority."""
        if not self._full:
            return ()
        return {
            Line(runner, owner, priority)
            for owner, lines in waiting.items()
            if not self.may_run(owner)
            for priority in lines
        }
