"""Statements in PostgreSQL's own form, ``$1`` for ``:name``, and how many of the same are carried out together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

from asyncpg import Connection

from service.store.database import Batch, Insert, Parameters, RowStatement, Statement
from service.store.pending import Write

# It also matches literals, quoted names, comments and casts, so that no parameter is found inside them.
_PARAMETER = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|--[^\n]*|::|:([A-Za-z_][A-Za-z0-9_]*)""")
_RETURNING = re.compile(r"'(?:[^']|'')*'|\b(RETURNING)\b")


class Converted(NamedTuple):
    """A statement in PostgreSQL's form, and the names of its parameters in their order."""

    sql: str
    names: tuple[str, ...]
    gives_rows: bool

    def arguments(self, parameters: Parameters) -> Sequence[Any]:
        return parameters if isinstance(parameters, tuple) else [parameters[name] for name in self.names]

    @property
    def numbered(self) -> str:
        """The statement with one more parameter, which comes back as the last column of each row."""
        return f"{self.sql.rstrip()}, ${len(self.names) + 1}::bigint"


@lru_cache(maxsize=512)
def converted(sql: str | RowStatement) -> Converted:
    """A statement, declared or a text with ``:name`` parameters, in PostgreSQL's form."""
    if not isinstance(sql, str):
        marks = [f"${number}" for number in range(1, len(sql.columns) + 1)]
        return Converted(sql.for_one(marks), sql.columns, isinstance(sql, Insert) and bool(sql.gives))
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        name = found[1]
        return found[0] if name is None else f"${names.setdefault(name, len(names) + 1)}"

    text = _PARAMETER.sub(number, sql)
    return Converted(text, tuple(names), any(found[1] for found in _RETURNING.finditer(text)))


async def run_in_order(connection: Connection[Any], writes: Sequence[Write]) -> None:
    """Carry out writes in their order. Neighbours with the same statements share one round trip for each statement.

    Among such neighbours, all first statements are carried out before all second ones. The second statement of a write
    must therefore look up only what is this write's own.
    """
    for shape, neighbours in groupby(writes, key=lambda write: [statement.sql for statement in write.statements]):
        same = list(neighbours)
        for write in same:
            write.answers = []
        for index, sql in enumerate(shape):
            await _run_statement(connection, converted(sql), index, same)


async def _run_statement(connection: Connection[Any], statement: Converted, index: int, writes: list[Write]) -> None:
    arguments: list[Sequence[Any]] = []
    for write in writes:
        match write.statements[index]:
            case Statement(_, parameters):
                arguments.append(statement.arguments(parameters))
            case Batch(_, rows):
                await connection.executemany(statement.sql, [statement.arguments(row) for row in rows])
    if not arguments:
        for write in writes:
            write.answers.append([])
        return
    if len(writes) == 1:
        records = await connection.fetch(statement.sql, *arguments[0])
        writes[0].answers.append([tuple(record) for record in records])
        return
    for write in writes:
        write.answers.append([])
    if not statement.gives_rows:
        await connection.executemany(statement.sql, arguments)
        return
    numbered = ((*values, number) for number, values in enumerate(arguments))
    for record in await connection.fetchmany(statement.numbered, numbered):
        *row, number = record
        writes[number].answers[index].append(tuple(row))
