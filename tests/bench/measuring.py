"""What every scenario is given, and the one way to compare things on a machine that is never quiet."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

ROUNDS = 5
ROUND_SECONDS = 2.0

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Bench:
    """A folder on the disk that is measured; every scenario makes new ones in it."""

    folder: Path
    other: Path | None = None
    """Another checkout, whose service is measured by turns with this one's; only scenarios with BY_TURNS do so."""

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)


class Compared(NamedTuple):
    """Medians over the rounds; ``ratio`` is the median of each round's own."""

    measured: float
    baseline: float
    ratio: float


def in_thread(
    work: Callable[Given, Result], *arguments: Given.args, **named: Given.kwargs
) -> Callable[[], Awaitable[Result]]:
    """Something that blocks, for :func:`by_turns`: meanwhile the loop goes on reading what the processes say."""
    return partial(asyncio.to_thread, work, *arguments, **named)


async def by_turns(works: Sequence[Callable[[], Awaitable[Result]]], *, rounds: int = ROUNDS) -> list[list[Result]]:
    """The results of each, round by round, so that whatever else the machine does meets all alike.

    Every second round goes backwards: what comes before a work has its effect on it, too.
    """
    results: list[list[Result]] = [[] for _ in works]
    for number in range(rounds):
        turns = list(zip(works, results, strict=True))
        for work, of_work in reversed(turns) if number % 2 else turns:
            of_work.append(await work())
    return results


async def compare(
    measured: Callable[[], Awaitable[float]], baseline: Callable[[], Awaitable[float]], *, rounds: int = ROUNDS
) -> Compared:
    """Run both by turns."""
    below, above = await by_turns([baseline, measured], rounds=rounds)
    return compared(above, below)


def compared(measured: Sequence[float], baseline: Sequence[float]) -> Compared:
    """What two gave in the same rounds."""
    return Compared(
        statistics.median(measured),
        statistics.median(baseline),
        statistics.median(above / below for above, below in zip(measured, baseline, strict=True)),
    )
