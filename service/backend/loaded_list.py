"""Which models a backend has loaded, as it last told. The list may be old: a healthy server can be slow to tell (wire
contract 4.5).
"""

from __future__ import annotations

from service.backend.models import LoadedModel

MOST_UNTOLD_SECONDS = 180
"""A server that tells its version, but for so long not what it has loaded, is not well. A ping of a runner that hangs
takes 10 s, and one that is loading 2 minutes.
"""


class LoadedList:
    """The list, and how it came by its age. Times are milliseconds."""

    __slots__ = ("_untold_since", "models", "told_at", "trouble")

    def __init__(self) -> None:
        self.models: tuple[LoadedModel, ...] = ()
        """Empty until it was told."""
        self.told_at: int | None = None
        """When it was last told; None until then."""
        self.trouble: str | None = None
        """What came in place of the last answer; None while there are answers."""
        self._untold_since: int | None = None

    @property
    def is_old(self) -> bool:
        """Whether the backend was asked again since, and did not tell."""
        return self.trouble is not None

    def is_overdue(self, now: int) -> bool:
        """Whether the backend has not told for too long."""
        return self._untold_since is not None and now - self._untold_since >= MOST_UNTOLD_SECONDS * 1000

    def told(self, models: tuple[LoadedModel, ...], now: int) -> None:
        self.models, self.told_at = models, now
        self.trouble = self._untold_since = None

    def missed(self, asked_at: int, trouble: str) -> None:
        """A question that was asked then has had no answer: the list stays as it was."""
        self.trouble = trouble
        if self._untold_since is None:
            self._untold_since = asked_at

    def begin_anew(self) -> None:
        """The backend is away: what it does not tell counts from its return."""
        self._untold_since = None
