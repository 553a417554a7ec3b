"""Statements that are declared, made for many rows: what SQLite does with them is what it does with each alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.database import Insert, Parameters, RowStatement, Update
from service.store.sqlite.bulk import MOST_ROWS, for_rows, in_runs

NEW = Insert("things", ("name", "size"))
PART = Insert("parts", ("thing", "text"))
SIZE = Update("things", ("size",), key="name")

NAMES = st.none() | st.sampled_from("abcdefgh")
NUMBERS = st.none() | st.integers(-3, 3)


@contextmanager
def tables() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.execute(
            "CREATE TABLE things (seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, size INTEGER) STRICT"
        )
        opened.execute("CREATE TABLE parts (thing INTEGER NOT NULL, text TEXT) STRICT")
        yield opened


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with tables() as opened:
        yield opened


def carry_out(connection: sqlite3.Connection, statement: RowStatement, rows: Sequence[Parameters]) -> sqlite3.Cursor:
    return connection.execute(*for_rows(statement, rows))


def one_by_one(connection: sqlite3.Connection, statement: RowStatement, rows: Sequence[tuple[Any, ...]]) -> None:
    for row in rows:
        connection.execute(statement.for_one("?" * len(row)), row)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 64, 65, MOST_ROWS])
def test_new_rows_get_their_numbers_in_their_order(connection: sqlite3.Connection, count: int) -> None:
    connection.execute("INSERT INTO things (name, size) VALUES ('before', 0)")
    connection.execute("DELETE FROM things")
    rows = [(f"n{number}", number) for number in range(count)]
    cursor = carry_out(connection, NEW, rows)
    assert (cursor.lastrowid, cursor.rowcount) == (count + 1, count)
    assert connection.execute("SELECT * FROM things").fetchall() == [
        (number + 2, name, number) for number, (name, _) in enumerate(rows)
    ]


def test_parameters_may_be_named_or_in_their_order_and_may_be_nothing(connection: sqlite3.Connection) -> None:
    carry_out(connection, NEW, [{"size": None, "name": "a"}, ("b", 2), {"name": None, "size": 3}])
    assert connection.execute("SELECT name, size FROM things").fetchall() == [("a", None), ("b", 2), (None, 3)]
    carry_out(connection, SIZE, [{"size": 7, "name": "b"}, (5, "a")])
    assert connection.execute("SELECT name, size FROM things").fetchall() == [("a", 5), ("b", 7), (None, 3)]


def test_what_is_nothing_in_all_rows_is_left_out_where_a_column_is_free_to_be_nothing(
    connection: sqlite3.Connection,
) -> None:
    assert for_rows(NEW, [(None, 1), (None, 2)])[1].count(None) == 0
    carry_out(connection, NEW, [(None, 1), (None, 2), (None, 3)])
    carry_out(connection, NEW, [("a", None), {"name": "b", "size": None}])
    carry_out(connection, NEW, [(None, None)] * 2)
    assert connection.execute("SELECT name, size FROM things").fetchall() == [
        (None, 1), (None, 2), (None, 3), ("a", None), ("b", None), (None, None), (None, None),
    ]  # fmt: skip
    with pytest.raises(sqlite3.IntegrityError):
        carry_out(connection, PART, [(None, "x"), (None, "y")])


def test_rows_of_which_one_is_refused_are_all_refused(connection: sqlite3.Connection) -> None:
    carry_out(connection, NEW, [("a", 1)])
    with pytest.raises(sqlite3.IntegrityError):
        carry_out(connection, NEW, [("b", 2), ("a", 3), ("c", 4)])
    assert connection.execute("SELECT name, size FROM things").fetchall() == [("a", 1)]


def test_every_row_is_changed_by_its_own_parameters_alone(connection: sqlite3.Connection) -> None:
    carry_out(connection, NEW, [("a", 1), ("b", 2), ("c", 3), (None, 4), ("0", 5)])
    cursor = carry_out(connection, SIZE, [(10, "b"), (30, "a"), (40, "nobody"), (50, None), (None, "c")])
    assert cursor.rowcount == 3
    assert connection.execute("SELECT size FROM things").fetchall() == [(30,), (10,), (None,), (4,), (5,)]


def test_of_two_changes_of_one_row_the_later_one_counts(connection: sqlite3.Connection) -> None:
    carry_out(connection, NEW, [("a", 1), ("b", 2)])
    carry_out(connection, SIZE, [(10, "a"), (20, "b"), (30, "a")])
    assert connection.execute("SELECT size FROM things").fetchall() == [(30,), (20,)]


@given(st.lists(st.tuples(st.none() | st.text("xyz", min_size=3), NUMBERS), min_size=1, max_size=MOST_ROWS))
def test_many_new_rows_at_once_are_what_they_are_one_by_one(rows: list[tuple[Any, ...]]) -> None:
    with tables() as at_once, tables() as in_turn:
        outcomes = []
        for connection, insert in ((at_once, carry_out), (in_turn, one_by_one)):
            try:
                insert(connection, NEW, rows)
            except sqlite3.IntegrityError as error:
                outcomes.append(str(error))
            else:
                outcomes.append(repr(connection.execute("SELECT * FROM things").fetchall()))
        assert outcomes[0] == outcomes[1]


@given(st.lists(st.tuples(NUMBERS, NAMES), min_size=1, max_size=20))
def test_many_changes_at_once_are_what_they_are_one_by_one(rows: list[tuple[Any, ...]]) -> None:
    with tables() as at_once, tables() as in_turn:
        for connection, change in ((at_once, carry_out), (in_turn, one_by_one)):
            one_by_one(connection, NEW, [(name, 9) for name in "abcdef"])
            change(connection, SIZE, rows)
        first, second = (one.execute("SELECT * FROM things").fetchall() for one in (at_once, in_turn))
        assert first == second


@pytest.mark.parametrize("statement", [NEW, SIZE])
def test_few_texts_serve_every_number_of_rows(statement: RowStatement) -> None:
    assert len({for_rows(statement, [(n, n) for n in range(count)])[0] for count in range(1, MOST_ROWS + 1)}) == 8
    assert [len(run) for run in in_runs(range(2 * MOST_ROWS + 5))] == [MOST_ROWS, MOST_ROWS, 5]


@pytest.mark.parametrize("statement", [NEW, SIZE])
def test_a_text_whose_parameters_are_all_null_does_nothing(
    connection: sqlite3.Connection, statement: RowStatement
) -> None:
    """So that a prepared statement can let go of what was bound to it."""
    connection.execute("INSERT INTO things (name, size) VALUES ('before', 0)")
    text, values = for_rows(statement, [("x", 1)] * 3 if statement is NEW else [(1, "x")] * 3)
    assert connection.execute(text, [None] * len(values)).rowcount == 0
    assert connection.execute("SELECT name, size FROM things").fetchall() == [("before", 0)]
