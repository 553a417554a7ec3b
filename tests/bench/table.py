"""What was measured, as a table to read and to paste into ``tests/bench/README.md``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Rates = tuple[float, float, float]
"""What was measured, its baseline, and the ratio."""

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
    what: str, compared: Sequence[Rates], wanted: float, unit: str, *, has_commit: bool = False
) -> list[Figure]:
    """A rate against aiohttp as it comes, of which so much is wanted, and against the same on the service's loop."""
    plain, (measured, baseline, ratio) = compared
    return [
        at_least(what, *plain, wanted, unit, has_commit=has_commit),
        Figure(
            "the same, against one that runs on uvloop, too",
            f"{measured:,.0f} {unit}",
            f"{baseline:,.0f} {unit}",
            f"{ratio:.2f}",
            "",
            None,
            has_commit,
        ),
    ]


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
