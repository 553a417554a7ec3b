"""What every scenario is given, and the one way to compare two things on a machine that is never quiet."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROUNDS = 5
ROUND_SECONDS = 2.0


@dataclass(frozen=True)
class Bench:
    """A folder on the disk that is measured; every scenario makes new ones in it."""

    folder: Path

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


def in_thread(work: Callable[..., float], *arguments: Any) -> Callable[[], Awaitable[float]]:
    """Something that blocks, for :func:`compare`: meanwhile the loop goes on reading what the processes say."""
    return partial(asyncio.to_thread, work, *arguments)


async def compare(
    measured: Callable[[], Awaitable[float]], baseline: Callable[[], Awaitable[float]], *, rounds: int = ROUNDS
) -> Compared:
    """Run both by turns, so that whatever else the machine does meets both alike."""
    [compared] = await compare_with(measured, [baseline], rounds=rounds)
    return compared


async def compare_with(
    measured: Callable[[], Awaitable[float]],
    baselines: Sequence[Callable[[], Awaitable[float]]],
    *,
    rounds: int = ROUNDS,
) -> list[Compared]:
    """The same against several baselines."""
    of_rounds = []
    for _ in range(rounds):
        below = [await baseline() for baseline in baselines]
        above = await measured()
        of_rounds.append([(above, one) for one in below])
    return [_compared(list(pairs)) for pairs in zip(*of_rounds, strict=True)]


def _compared(pairs: Sequence[tuple[float, float]]) -> Compared:
    return Compared(
        statistics.median(pair[0] for pair in pairs),
        statistics.median(pair[1] for pair in pairs),
        statistics.median(pair[0] / pair[1] for pair in pairs),
    )
