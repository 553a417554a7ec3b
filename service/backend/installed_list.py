"""Which models a backend has, as it last told. While it is away its last list is better than none."""

from __future__ import annotations

from typing import NamedTuple

from service.backend.models import InstalledModel


class ToldList(NamedTuple):
    """The models that a backend told of, and when (milliseconds)."""

    models: tuple[InstalledModel, ...]
    told_at: int


class InstalledList:
    """The list that decides where jobs go is what the backend has told this process. What it told an earlier one is
    only shown.
    """

    __slots__ = ("before", "models", "told_at")

    def __init__(self) -> None:
        self.models: tuple[InstalledModel, ...] | None = None
        """As the backend last told; None until it has."""
        self.told_at = 0
        """When it last told, in milliseconds; 0 until it has."""
        self.before: ToldList | None = None
        """What it told before this process began, as far as that was kept."""

    @property
    def told(self) -> ToldList | None:
        """What it told this process; None when it has told nothing yet."""
        return None if self.models is None else ToldList(self.models, self.told_at)

    @property
    def last_told(self) -> ToldList | None:
        """What it told last, to this process or before; None when nothing is known."""
        return self.told or self.before
