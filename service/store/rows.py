"""Many rows in one INSERT: one step of the database, and of Python's lock, for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

MOST_ROWS = 128
"""A statement has at most so many rows; 32,766 parameters are SQLite's limit."""

_VALUES = re.compile(r"(INSERT INTO .*? VALUES )(\(.*\))((?: RETURNING .*)?)", re.DOTALL)
_PARAMETER = re.compile(r":([a-z_]+)")

Item = TypeVar("Item")


class Insert(NamedTuple):
    """An INSERT of one row taken apart."""

    head: str
    row: str
    tail: str
    names: tuple[str, ...]

    def statement(self, rows: int) -> str:
        """The INSERT of so many rows, with positional parameters."""
        return _statement(self, rows)

    def arguments(self, parameters: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The positional parameters for these rows."""
        return [row[name] for row in parameters for name in self.names]


@lru_cache(maxsize=256)
def insert_of(sql: str) -> Insert | None:
    """The statement as an INSERT of one row of values; None for any other."""
    found = _VALUES.fullmatch(sql)
    if found is None:
        return None
    head, row, tail = found.groups()
    return Insert(head, _PARAMETER.sub("?", row), tail, tuple(_PARAMETER.findall(row)))


def in_powers_of_two(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in runs whose lengths are powers of two: few different statements serve every number of rows."""
    start = 0
    while start < len(items):
        length = min(MOST_ROWS, 1 << ((len(items) - start).bit_length() - 1))
        yield items[start : start + length]
        start += length


@lru_cache(maxsize=256)
def _statement(insert: Insert, rows: int) -> str:
    return insert.head + ", ".join([insert.row] * rows) + insert.tail
