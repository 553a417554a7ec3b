"""Ending, from outside, what a task is in the middle of, without ending the task."""

from __future__ import annotations

import asyncio
from types import TracebackType


class CancelScope:
    """Made by the task for a stretch of its work; whoever calls it makes that stretch raise CancelledError, once.

    Called by the task itself it only takes note: what runs cannot be interrupted by itself. ``with`` it, the task goes
    on behind a stretch that was ended so.
    """

    __slots__ = ("_has_cancelled", "_task", "is_asked")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._has_cancelled = False
        self.is_asked = False

    def __enter__(self) -> CancelScope:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        is_meant = self.is_meant()
        self.end()
        return is_meant and isinstance(error, asyncio.CancelledError)

    def __call__(self) -> None:
        task = self._task
        if task is None or self.is_asked:
            return
        self.is_asked = True
        if task is not asyncio.current_task():
            self._has_cancelled = True
            task.cancel()

    def is_meant(self) -> bool:
        """Whether the CancelledError that was caught is this one's; else somebody ends the task, and it must go on."""
        if not self._has_cancelled or self._task is None:
            return False
        self._has_cancelled = False
        return self._task.uncancel() == 0

    def end(self) -> None:
        """The stretch is over: from now on calls do nothing."""
        self._task = None
