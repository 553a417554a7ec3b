"""Many rows in one statement: one step of the database, and of Python's lock, for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from service.store.database import Parameters

MOST_ROWS = 128
"""A statement has at most so many rows; 32,766 parameters are SQLite's limit."""

_INSERT = re.compile(
    r"\s*(INSERT INTO \w+) \(([\w\s,]+)\)\s+VALUES \(((?:(?!ON CONFLICT).)*)\)\s*(RETURNING seq\s*)?", re.DOTALL
)
_UPDATE = re.compile(
    r"\s*(UPDATE \w+ SET .*?)(\s+WHERE (\w+) = :\3\b(?:(?!\sRETURNING\s).)*?)(?:\s*|\s+RETURNING \3\s*)", re.DOTALL
)
_COPY = re.compile(r"\s*(INSERT INTO .*?\s+SELECT .*?) FROM (\w+)(\s+WHERE (\w+) = :\4\b.*)", re.DOTALL)
_PARAMETER = re.compile(r":([a-z_]+)")
_OF_A_CALLER = frozenset(
    ("door", "endpoint", "method", "status_code", "model", "model_key", "runner", "owner", "key_id", "priority")
)
"""What rows that are stored together mostly have in common, all of it or not."""
_ONLY_PARAMETERS = re.compile(r"\s*:\w+\s*(,\s*:\w+\s*)*")

Item = TypeVar("Item")


class Kind(Enum):
    """What a statement about one row does."""

    INSERT = "a new row"
    UPDATE = "changes the row that its key names"
    COPY = "a new row from the one that its key names"


class ForRows(NamedTuple):
    """A statement for one row taken apart, so that it can be made for many.

    There are statements for few numbers of rows, since each is kept ready by its connection; rows that are missing are
    filled up with zeros, and do nothing.
    """

    kind: Kind
    head: str
    row: str
    tail: str
    names: tuple[str, ...]
    """The parameters of a row, in their order."""
    key: str = ""
    """The parameter that names a row; of a new one only where it is asked for."""

    columns: tuple[str, ...] = ()
    """Of a new row whose values are its parameters: where those go. What is NULL in all rows is left out, and what they
    have from one caller is given once.
    """

    def call(self, rows: Sequence[Parameters]) -> tuple[str, list[Any]]:
        """The statement for these rows, with positional parameters, and those."""
        ordered = (row if isinstance(row, tuple) else [row[name] for name in self.names] for row in rows)
        parts, one, common = list(zip(*ordered, strict=True)), self, []
        if self.columns:
            # Each parameter takes its time, with Python's lock held, and a None three times as long as an integer.
            given = tuple(n for n, part in enumerate(parts) if part[0] is not None or part.count(None) < len(part))
            given = given or (0,)
            alike = tuple(n for n in given if self.columns[n] in _OF_A_CALLER)
            if len(rows) == 1 or any(parts[n].count(parts[n][0]) < len(rows) for n in alike):
                alike = ()
            one, common = _narrowed(self, given, alike), [parts[n][0] for n in alike]
            parts = [parts[n] for n in given if n not in alike]
        if self.kind is Kind.INSERT:
            parts.insert(0, (1,) * len(rows))
        filled = _filled_up(len(rows))
        missing = [0] * (len(parts) * (filled - len(rows)))
        return _statement(one, filled), [*common, *chain.from_iterable(zip(*parts, strict=True)), *missing]

    def values_of(self, rows: Sequence[Parameters], name: str) -> list[Any]:
        """A parameter of each row."""
        place = self.names.index(name)
        return [row[place] if isinstance(row, tuple) else row[name] for row in rows]


@lru_cache(maxsize=256)
def for_rows(sql: str) -> ForRows | None:
    """The statement taken apart, when it is about one row that it names, or one that is new; None for any other.

    That is: ``INSERT … VALUES (…)`` that gives nothing or the number that it is given, ``UPDATE … WHERE key = :key``
    that gives nothing or the key, and ``INSERT … SELECT … FROM table WHERE key = :key``.
    """
    if new := _INSERT.fullmatch(sql):
        start, columns, row, returning = new.groups()
        names = tuple(_PARAMETER.findall(row))
        if returning is not None and "seq" not in names:
            return None
        places = tuple(column.strip() for column in columns.split(","))
        one = ForRows(
            Kind.INSERT,
            f"{start} ({columns}) SELECT {_taken(len(places))} FROM (VALUES ",
            f"(?, {_PARAMETER.sub('?', row)})",
            ") WHERE column1",
            names,
            "seq" if returning is not None else "",
        )
        return one._replace(columns=places) if _ONLY_PARAMETERS.fullmatch(row) else one
    if change := _UPDATE.fullmatch(sql):
        start, condition, key = change.groups()
        return _given(Kind.UPDATE, sql, start, condition, key)
    if copy := _COPY.fullmatch(sql):
        start, table, condition, key = copy.groups()
        # A cross join is carried out from left to right: each row that is given is looked up by its key.
        return _given(Kind.COPY, sql, start, f" CROSS JOIN {table}{condition}", key)
    return None


def _taken(columns: int) -> str:
    """The columns of a new row, from the second on: whether a row is one says its first."""
    return ", ".join(f"column{number}" for number in range(2, columns + 2))


@lru_cache(maxsize=256)
def _narrowed(one: ForRows, given: tuple[int, ...], alike: tuple[int, ...]) -> ForRows:
    """The same for new rows that have only these of its columns, and of those some alike."""
    own = [n for n in given if n not in alike]
    taken = ("?" if n in alike else f"column{own.index(n) + 2}" for n in given)
    places = ", ".join(one.columns[n] for n in given)
    head = one.head.partition("(")[0] + f"({places}) SELECT {', '.join(taken)} FROM (VALUES "
    return one._replace(head=head, row=f"({', '.join('?' * (1 + len(own)))})")


def _given(kind: Kind, sql: str, start: str, end: str, key: str) -> ForRows:
    """The parameters come from a table of theirs. Zero is no row's key."""
    names = tuple(dict.fromkeys(_PARAMETER.findall(sql)))
    columns = ", ".join(f"column{number} AS given_{name}" for number, name in enumerate(names, 1))
    return ForRows(
        kind,
        _PARAMETER.sub(r"given_\1", start) + f" FROM (SELECT {columns} FROM (VALUES ",
        f"({', '.join('?' * len(names))})",
        ")) AS given" + _PARAMETER.sub(r"given_\1", end),
        names,
        key,
    )


@lru_cache(maxsize=256)
def positional(sql: str) -> str:
    """The statement for parameters in the order in which it names them, each once."""
    return _PARAMETER.sub("?", sql)


def in_runs(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items, as many at a time as one statement may have."""
    for start in range(0, len(items), MOST_ROWS):
        yield items[start : start + MOST_ROWS]


def _filled_up(rows: int) -> int:
    """The next power of two."""
    return 1 << (rows - 1).bit_length()


@lru_cache(maxsize=256)
def _statement(one: ForRows, rows: int) -> str:
    return one.head + ", ".join([one.row] * rows) + one.tail
