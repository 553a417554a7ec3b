"""Declared statements for many rows at once: Python's lock is given away once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

from service.store.database import Insert, Parameters, RowStatement, Update

MOST_ROWS = 128
"""The most rows of one statement; SQLite's limit is 32,766 parameters."""

Item = TypeVar("Item")


def for_rows(statement: RowStatement, rows: Sequence[Parameters]) -> tuple[str, list[Any]]:
    """The text for all of these rows, and its positional parameters.

    Texts are made for few numbers of rows only, so that the connection finds them among those it has prepared. Rows
    that do nothing fill a text up.
    """
    values = [row if isinstance(row, tuple) else [row[column] for column in statement.columns] for row in rows]
    if isinstance(statement, Insert):
        return _inserts(statement, values)
    return _updates(statement, values)


def in_runs(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items, in parts of at most MOST_ROWS."""
    for start in range(0, len(items), MOST_ROWS):
        yield items[start : start + MOST_ROWS]


def _inserts(statement: Insert, rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """The first parameter of each row is 1; in the rows that fill the text up it is 0."""
    # Binding a parameter takes time while Python's lock is held, so a column that is NULL in all rows is left out.
    parts = list(zip(*rows, strict=True))
    given = tuple(n for n, part in enumerate(parts) if part[0] is not None or part.count(None) < len(part)) or (0,)
    filled = _filled_up(len(rows))
    values = chain.from_iterable(zip((1,) * len(rows), *[parts[n] for n in given], strict=True))
    return _insert_text(statement, given, filled), [*values, *[0] * ((1 + len(given)) * (filled - len(rows)))]


@lru_cache(maxsize=256)
def _insert_text(statement: Insert, given: tuple[int, ...], rows: int) -> str:
    columns = ", ".join(statement.columns[n] for n in given)
    taken = ", ".join(f"column{number}" for number in range(2, len(given) + 2))
    return (
        f"INSERT INTO {statement.table} ({columns}) "
        f"SELECT {taken} FROM (VALUES {_marks(1 + len(given), rows)}) WHERE column1"
    )


def _updates(statement: Update, rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    # Of two changes of one row the later one counts. SQLite would carry out either.
    last = {row[-1]: row for row in rows}.values()
    filled = _filled_up(len(last))
    # NULL is no row's key.
    nothing = [None] * (len(statement.columns) * (filled - len(last)))
    return _update_text(statement, filled), [*chain.from_iterable(last), *nothing]


@lru_cache(maxsize=256)
def _update_text(statement: Update, rows: int) -> str:
    changes = ", ".join(f"{column} = given.column{number}" for number, column in enumerate(statement.changed, 1))
    width = len(statement.columns)
    return (
        f"UPDATE {statement.table} SET {changes} FROM (VALUES {_marks(width, rows)}) AS given "
        f"WHERE {statement.key} = given.column{width}"
    )


def _marks(width: int, rows: int) -> str:
    """Placeholders for so many rows, each of so many parameters."""
    return ", ".join([f"({', '.join('?' * width)})"] * rows)


def _filled_up(rows: int) -> int:
    """The next power of two, from 1 on."""
    return 1 << (rows - 1).bit_length()
