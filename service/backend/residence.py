"""How a runner stands on one backend: that it is there, that others make way for it, or what is in its way."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(slots=True)
class Residence:
    """A runner's stay on this backend."""

    asked_at: int
    """When its first job was sent."""
    loaded_at: int | None = None
    has_answered: bool = False
    """To be listed is not enough: the model may still be loaded with other options."""

    @property
    def load_ms(self) -> int:
        return (self.loaded_at or self.asked_at) - self.asked_at


@dataclass(frozen=True, slots=True)
class Swap:
    """An overdue runner, for which the others are drained."""

    runner: str


class Obstacle(StrEnum):
    """What keeps a job from a free seat."""

    LOADING = "loading"
    """Its runner is being loaded."""
    DRAINING = "draining"
    """It is loaded next, when those that are at work have ended."""
    OTHER_MODEL = "other_model"
    """Another one is loaded and keeps its place, or is loaded first."""
