"""Statements about one row, made for many: what SQLite does with them is what it does with each alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from service.store import idempotency, keys, request_log
from service.store.job_statements import CANCEL, CLAIM, FINISH, INSERT, INSERT_RESULT, PROMOTE, PUT_BACK
from service.store.sqlite.bulk import MOST_ROWS, Kind, for_rows, in_runs

NEW = "INSERT INTO things (name, size) VALUES (:name, :size)"
PART = "INSERT INTO parts (thing, text) VALUES ((SELECT seq FROM things WHERE name = :name), :text)"
GROW = "UPDATE things SET size = size + :more WHERE name = :name AND size < :most RETURNING name"
COPY = "INSERT INTO parts (thing, text) SELECT seq, :text FROM things WHERE name = :name AND size > :least"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        opened.execute(
            "CREATE TABLE things (seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, size INTEGER) STRICT"
        )
        opened.execute("CREATE TABLE parts (thing INTEGER NOT NULL, text TEXT) STRICT")
        yield opened


def carry_out(connection: sqlite3.Connection, sql: str, rows: list[Any]) -> sqlite3.Cursor:
    one = for_rows(sql)
    assert one is not None
    return connection.execute(*one.call(rows))


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
    carry_out(connection, PART, [("b", "of b"), {"name": "a", "text": None}, ("b", "again")])
    assert connection.execute("SELECT name, size FROM things").fetchall() == [("a", None), ("b", 2), (None, 3)]
    assert connection.execute("SELECT * FROM parts").fetchall() == [(2, "of b"), (1, None), (2, "again")]


def test_what_is_nothing_in_all_rows_is_left_out_where_a_column_is_free_to_be_nothing(
    connection: sqlite3.Connection,
) -> None:
    carry_out(connection, NEW, [(None, 1), (None, 2), (None, 3)])
    carry_out(connection, NEW, [("a", None), {"name": "b", "size": None}])
    carry_out(connection, NEW, [(None, None)] * 2)
    assert connection.execute("SELECT name, size FROM things").fetchall() == [
        (None, 1), (None, 2), (None, 3), ("a", None), ("b", None), (None, None), (None, None),
    ]  # fmt: skip
    carry_out(connection, PART, [("a", None), ("b", None)])
    assert connection.execute("SELECT * FROM parts").fetchall() == [(4, None), (5, None)]
    with pytest.raises(sqlite3.IntegrityError):
        carry_out(connection, "INSERT INTO parts (thing, text) VALUES (:thing, :text)", [(None, "x"), (None, "y")])


def test_what_all_rows_have_from_one_caller_is_given_once(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE asked (at INTEGER, owner TEXT, model TEXT, key_id TEXT, text TEXT) STRICT")
    insert = "INSERT INTO asked (at, owner, model, key_id, text) VALUES (:at, :owner, :model, :key_id, :text)"
    one = for_rows(insert)
    assert one is not None
    alike = [(number, "me", "small", None, f"text {number}") for number in range(5)]
    sql, parameters = one.call(alike)
    assert (sql.count("?"), parameters.count("me")) == (2 + 8 * 3, 1)
    groups: list[list[tuple[Any, ...]]] = [
        alike,
        [(1, "me", "small", None, "x"), (2, "you", "small", None, "y"), (3, "me", "small", None, None)],
        [(4, "me", "small", "key", None), (5, "me", "small", None, None)],
        [(6, "me", "small", "key", "x")],
        [(None, "me", "", "key", ""), (None, "me", "", "key", "z")],
    ]
    for rows in groups:
        carry_out(connection, insert, rows)
    assert connection.execute("SELECT * FROM asked ORDER BY rowid").fetchall() == [
        row for rows in groups for row in rows
    ]


def test_what_is_not_there_is_an_error_as_it_is_alone(connection: sqlite3.Connection) -> None:
    carry_out(connection, NEW, [("a", 1)])
    with pytest.raises(sqlite3.IntegrityError):
        carry_out(connection, PART, [("a", "text"), ("nobody", "text"), ("a", "text")])


def test_every_row_is_changed_by_its_own_parameters_alone(connection: sqlite3.Connection) -> None:
    carry_out(connection, NEW, [("a", 1), ("b", 2), ("c", 3), (None, 4)])
    cursor = carry_out(connection, GROW, [(10, "b", 5), (20, "c", 3), (30, "a", 2), (40, "nobody", 9), (1, "x", 9)])
    assert cursor.rowcount == 2
    assert connection.execute("SELECT size FROM things").fetchall() == [(31,), (12,), (3,), (4,)]


def test_rows_are_made_from_those_that_their_keys_name(connection: sqlite3.Connection) -> None:
    carry_out(connection, NEW, [("a", 1), ("b", 2), ("c", 3)])
    carry_out(connection, COPY, [("c", "c", 0), ("a", "a", 1), ("b", "b", 1)])
    assert connection.execute("SELECT * FROM parts").fetchall() == [(3, "c"), (2, "b")]


def test_few_statements_serve_every_number_of_rows() -> None:
    one = for_rows(NEW)
    assert one is not None
    assert len({one.call([("a", 1)] * count)[0] for count in range(1, MOST_ROWS + 1)}) == 8
    assert [len(run) for run in in_runs(range(2 * MOST_ROWS + 5))] == [MOST_ROWS, MOST_ROWS, 5]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        (INSERT, Kind.INSERT), (FINISH, Kind.INSERT), (INSERT_RESULT, Kind.COPY),
        (request_log._INSERT, Kind.INSERT), (request_log._END, Kind.UPDATE), (idempotency._INSERT, Kind.INSERT),
        (idempotency._KEEP, Kind.UPDATE), (keys._TOUCH, Kind.UPDATE),
        (CANCEL, None), (CLAIM, None), (PROMOTE, None), (PUT_BACK, None), (keys._PUT, None), (keys._SET, None),
        (keys._SET_ONCE, None), (keys._REVOKE, None), ("SELECT 1", None), ("DELETE FROM jobs WHERE seq = :seq", None),
        ("INSERT INTO things (seq, name) VALUES (:seq, :name) RETURNING seq", Kind.INSERT),
        ("INSERT INTO things (name) VALUES (:name) RETURNING seq", None),
        ("INSERT INTO things (name) VALUES (:name) RETURNING name", None),
        ("UPDATE things SET size = 1 WHERE name = :name RETURNING name, size", None),
        ("UPDATE things SET size = 1 WHERE size > :size", None),
    ],
)  # fmt: skip
def test_what_is_about_one_row_is_told_by_its_words(sql: str, kind: Kind | None) -> None:
    one = for_rows(sql)
    assert (one and one.kind) == kind
