"""What is stored of the order, so that it outlives a restart."""

from __future__ import annotations

from typing import NamedTuple


class ModelRow(NamedTuple):
    """How far service on a model has got, and what its jobs cost. Times are milliseconds."""

    model: str
    reached: float
    """The largest ``served`` that any claim has reached: where newcomers begin."""
    mean_ms: float | None
    """None: no job has ended yet."""
    samples: int
    """How many ended jobs the mean was learned from, up to the number from which on it makes no difference."""


class ShareRow(NamedTuple):
    """What one owner has been served on one model, in all and by priority; None for a priority that it never used.

    What is charged for jobs that still run is left out: after a crash they run again, and are charged again.
    """

    model: str
    owner: str
    served: float
    turn: int
    """When it last had a turn or began to wait: decides among equals."""
    reached: float
    """The largest ``served`` that any claim has reached among the owner's priorities."""
    high: float | None
    high_turn: int | None
    normal: float | None
    normal_turn: int | None
    low: float | None
    low_turn: int | None
