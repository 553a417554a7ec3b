"""Many rows in one statement: one step of the database, and of Python's lock, for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from service.store.database import Parameters

_MOST_ROWS = 128
"""A statement has at most so many rows; 32,766 parameters are SQLite's limit."""

_INSERT = re.compile(r"\s*(INSERT INTO .*?\sVALUES )(\((?:(?!ON CONFLICT).)*\))(\s*|\s+RETURNING .*)", re.DOTALL)
_UPDATE = re.compile(
    r"\s*(UPDATE \w+ SET .*?)(\s+WHERE (\w+) = :\3\b(?:(?!\sRETURNING\s).)*?)(\s*|\s+RETURNING \3\s*)", re.DOTALL
)
_COPY = re.compile(r"\s*(INSERT INTO .*?\s+SELECT .*?) FROM (\w+)(\s+WHERE (\w+) = :\4\b.*)", re.DOTALL)
_PARAMETER = re.compile(r":([a-z_]+)")

Item = TypeVar("Item")


class ForRows(NamedTuple):
    """A statement for one row taken apart, so that it can be made for many."""

    head: str
    row: str
    tail: str
    names: tuple[str, ...]
    """The parameters of a row, in their order."""
    key: str | None
    """The parameter that names the row, which no two may share, and the column that comes back; None for new rows, of
    which something comes back for each in its turn.
    """

    def statement(self, rows: int) -> str:
        """The statement for so many rows, with positional parameters."""
        return _statement(self, rows)

    def arguments(self, rows: Sequence[Parameters]) -> list[Any]:
        """The positional parameters for these rows."""
        return list(chain.from_iterable(map(self.values, rows)))

    def values(self, row: Parameters) -> Iterable[Any]:
        """The values of a row in their order."""
        return row if isinstance(row, tuple) else [row[name] for name in self.names]


@lru_cache(maxsize=256)
def for_rows(sql: str) -> ForRows | None:
    """The statement taken apart, when it is about one row that it names, or one that is new; None for any other.

    That is: ``INSERT … VALUES (…)``, ``UPDATE … WHERE key = :key`` that gives nothing or the key, and ``INSERT …
    SELECT … FROM table WHERE key = :key``.
    """
    if new := _INSERT.fullmatch(sql):
        head, row, tail = new.groups()
        return ForRows(head, _PARAMETER.sub("?", row), tail, tuple(_PARAMETER.findall(row)), None)
    if change := _UPDATE.fullmatch(sql):
        start, condition, key, tail = change.groups()
        return _given(sql, f"{start} FROM given{condition}{tail}", key)
    if copy := _COPY.fullmatch(sql):
        start, table, condition, key = copy.groups()
        # A cross join is carried out from left to right: each row that is given is looked up by its key.
        return _given(sql, f"{start} FROM given CROSS JOIN {table}{condition}", key)
    return None


def _given(sql: str, body: str, key: str) -> ForRows:
    """The parameters come from a table of theirs."""
    names = tuple(dict.fromkeys(_PARAMETER.findall(sql)))
    columns = ", ".join(f"given_{name}" for name in names)
    return ForRows(
        f"WITH given ({columns}) AS (VALUES ",
        f"({', '.join('?' * len(names))})",
        ") " + _PARAMETER.sub(r"given_\1", body),
        names,
        key,
    )


def in_runs(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items in few runs, of few different lengths: few different statements serve every number of rows."""
    start = 0
    while (left := len(items) - start) > 0:
        power = 1 << (left.bit_length() - 1)
        length = min(_MOST_ROWS, power + power // 2 if left >= power + power // 2 else power)
        yield items[start : start + length]
        start += length


@lru_cache(maxsize=256)
def _statement(one: ForRows, rows: int) -> str:
    return one.head + ", ".join([one.row] * rows) + one.tail
