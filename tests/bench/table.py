"""What was measured, as a table to read and to paste into ``tests/bench/README.md``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from tests.bench.measuring import compared

_MET = {True: "yes", False: "**no**", None: ""}


class Figure(NamedTuple):
    """One thing that was measured, and whether that is what is wanted. Texts carry their units."""

    what: str
    measured: str
    baseline: str
    """What the same machine did in the same run with something simpler, "" where there is nothing to compare with."""
    ratio: str
    wanted: str
    is_met: bool | None
    """None where nothing is wanted of it."""
    has_commit: bool = False
    """Whether a commit on this disk is part of it."""


def at_least(
    what: str, measured: float, baseline: float, ratio: float, wanted: float, unit: str, *, has_commit: bool = False
) -> Figure:
    """A rate that must not fall below so much of its baseline."""
    return Figure(
        what,
        f"{measured:,.0f} {unit}",
        f"{baseline:,.0f} {unit}",
        f"{ratio:.2f}",
        f"≥ {wanted:.2f}",
        ratio >= wanted,
        has_commit,
    )


def against_bare(
    what: str, sides: Sequence[Sequence[float]], wanted: float | None, unit: str, *, has_commit: bool = False
) -> list[Figure]:
    """A rate or a cost against aiohttp as it comes, of which so much is wanted; behind the comma, against it on uvloop.

    ``sides`` are the rounds of that, of the same on uvloop, of this checkout's service, and of the other's if there is
    one.
    """
    plain, on_uvloop, here, *others = sides
    measured, baseline, ratio = compared(here, plain)
    return [
        Figure(
            what,
            f"{_number(measured)} {unit}",
            f"{_number(baseline)} {unit}",
            f"{ratio:.2f}, {compared(here, on_uvloop).ratio:.2f}",
            "" if wanted is None else f"≥ {wanted:.2f}",
            None if wanted is None else ratio >= wanted,
            has_commit,
        ),
        *_against_other(here, others, unit, has_commit=has_commit),
    ]


def added_milliseconds(
    what: str, direct: Sequence[float], through: Sequence[Sequence[float]], wanted: float
) -> list[Figure]:
    """What the service adds to calls that go to the backend itself.

    ``through`` are the times of this checkout's service, and then of the other's if there is one.
    """
    here, *others = through
    below, above = statistics.median(direct), statistics.median(here)
    return [
        Figure(
            f"{what}; against calling the backend directly",
            f"{above:.2f} ms",
            f"{below:.2f} ms",
            f"+{above - below:.2f} ms",
            f"≤ +{wanted:g} ms",
            above - below <= wanted,
            has_commit=True,
        ),
        *_against_other(here, others, "ms", has_commit=True),
    ]


def _against_other(
    here: Sequence[float], others: Sequence[Sequence[float]], unit: str, *, has_commit: bool
) -> list[Figure]:
    figures = []
    for other in others:
        measured, baseline, ratio = compared(here, other)
        texts = (f"{_number(measured)} {unit}", f"{_number(baseline)} {unit}", f"{ratio:.3f}")
        figures.append(Figure("the same, against the other checkout's service", *texts, "", None, has_commit))
    return figures


def _number(value: float) -> str:
    """Three digits or more."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def at_most(
    what: str, measured: float, wanted: float, unit: str, *, baseline: str = "", has_commit: bool = False
) -> Figure:
    """Something that must not exceed a number in its own unit."""
    return Figure(what, f"{measured:.3g} {unit}", baseline, "", f"≤ {wanted:g} {unit}", measured <= wanted, has_commit)


def at_most_times(
    what: str,
    measured: float,
    baseline: float,
    ratio: float,
    wanted: float,
    unit: str,
    *,
    has_commit: bool = False,
) -> Figure:
    """Something that must not grow beyond so many times its baseline; ``ratio`` says how often it is that."""
    return Figure(
        what,
        f"{measured:,.4g} {unit}",
        f"{baseline:,.4g} {unit}",
        f"{ratio:.2f}",
        f"≤ {wanted:.2f}",
        ratio <= wanted,
        has_commit,
    )


class Row(NamedTuple):
    """A figure, and what one commit took on that disk before and after it was measured, the longer of the two."""

    figure: Figure
    commit_ms: float


def markdown(rows: Sequence[Row]) -> str:
    """The table, one line a figure."""
    lines = [
        "| what | figure | baseline, same run | ratio | wanted | met | one commit |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    lines += [
        f"| {figure.what} | {figure.measured} | {figure.baseline} | {figure.ratio} | {figure.wanted} "
        f"| {_MET[figure.is_met]} | {f'{commit_ms:.2f} ms' if figure.has_commit else ''} |"
        for figure, commit_ms in rows
    ]
    return "\n".join(lines)
