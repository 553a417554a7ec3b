"""Tables on a terminal, drawn by rich."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_BETWEEN = 2
"""Blanks between two columns."""
_NARROWEST = 8
_NOTHING = "-"


def draw_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, has_color: bool) -> None:
    """As wide as the terminal at most: the widest columns are cut, and the first one is whole, as it is to be copied.
    Columns that say nothing of any row are left out.
    """
    lines = list(rows)
    told = [place for place in range(len(columns)) if not place or any(row[place] != _NOTHING for row in lines)]
    console = Console(
        file=sys.stdout, force_terminal=has_color, color_system="standard" if has_color else None, highlight=False
    )
    natural = [max(cell_len(line[place]) for line in (columns, *lines)) for place in told]
    widths = fitted(natural, console.width - _BETWEEN * (len(told) - 1))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, _BETWEEN - 1, 0, 0))
    for place, width in zip(told, widths, strict=True):
        table.add_column(columns[place], no_wrap=True, overflow="ellipsis", width=width)
    for row in lines:
        table.add_row(*(Text(row[place]) for place in told))
    console.print(table)


def fitted(natural: Sequence[int], room: int) -> list[int]:
    """The widths of columns that share so much room: the widest give way first, but never the first column, and none
    below what is still of use.
    """
    widths = list(natural)
    while sum(widths) > room:
        place = max(range(1, len(widths)), key=widths.__getitem__, default=0)
        if not place or widths[place] <= _NARROWEST:
            break
        widths[place] -= 1
    return widths
