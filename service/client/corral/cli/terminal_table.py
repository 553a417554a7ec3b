"""Tables on a terminal, drawn by rich."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def draw_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, has_color: bool) -> None:
    """As wide as the terminal at most; what does not fit is cut, and never wrapped."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    lines = list(rows)
    # What a row is called by is whole, as it is to be copied.
    widths = [max((len(row[0]) for row in lines), default=0)] + [0] * (len(columns) - 1)
    for name, width in zip(columns, widths, strict=True):
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=width or None)
    for row in lines:
        table.add_row(*map(Text, row))
    Console(
        file=sys.stdout, force_terminal=has_color, color_system="standard" if has_color else None, highlight=False
    ).print(table)
