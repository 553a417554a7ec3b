"""The rows of the fault matrix, in the order in which they are written down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

Check = Callable[[Path], Awaitable[None]]


@dataclass(frozen=True)
class Row:
    """One fault. The words are those of the documentation; ``check`` gets an empty folder and fails when they are not
    true.
    """

    where: str
    fault: str
    outcome: str
    check: Check

    @property
    def name(self) -> str:
        return self.check.__name__


FOUND: list[Row] = []


def row(where: str, fault: str, outcome: str) -> Callable[[Check], Check]:
    """Put a check into the matrix."""

    def add(check: Check) -> Check:
        FOUND.append(Row(where, fault, outcome, check))
        return check

    return add
