"""The fault matrix as a table on its page, between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tests.faults.rows import Row

PAGE = Path(__file__).parent / "README.md"
BEGIN = "<!-- fault matrix: written by python -m tests.faults -->"
END = "<!-- end of the fault matrix -->"


def rendered(rows: Sequence[Row]) -> str:
    """The table, with the markers."""
    lines = [BEGIN, "", "| what goes wrong | what happens then |", "|---|---|"]
    for where, group in groupby(rows, key=lambda one: one.where):
        lines.append(f"| **{where}** | |")
        lines += [f"| {one.fault} | {one.outcome} |" for one in group]
    return "\n".join([*lines, "", END])


def written(path: Path = PAGE) -> str:
    """What stands between the markers now, with them; "" where they are missing."""
    text = path.read_text(encoding="utf-8")
    begin, end = text.find(BEGIN), text.find(END)
    return text[begin : end + len(END)] if 0 <= begin < end else ""


def write(rows: Sequence[Row], path: Path = PAGE) -> None:
    """Put the table where the old one stands. Raises ValueError where there is none."""
    old = written(path)
    if not old:
        raise ValueError(f"{path} lacks the markers {BEGIN} and {END}")
    path.write_text(path.read_text(encoding="utf-8").replace(old, rendered(rows)), encoding="utf-8")
