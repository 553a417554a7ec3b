"""What a database does for the store; ``sqlite.py`` and ``postgres.py`` do it.

Statements are written once, in the subset both understand: named ``:parameters``, ``RETURNING``, ``ON CONFLICT``, times
as milliseconds since the epoch, JSON as text, the words of a status written into the SQL so that partial indexes apply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from service.errors import ServiceError
from service.metrics.values import Histogram

Row = tuple[Any, ...]
Parameters = Mapping[str, Any] | tuple[Any, ...]
"""By name; or, of a statement that is declared, in the order of its columns."""


Answers = list[list[Row]]
"""The rows of each statement of a write."""
Written = asyncio.Future[Answers]
"""A write that is on disk when this is done."""
Settle = Callable[[Answers, ServiceError | None], None]
"""Hears what a write came to: its answers, or why it was not carried out."""


@dataclass(frozen=True, eq=False)
class Insert:
    """A new row of a table, declared once, so that a database can make its own text of it, for one row or many."""

    table: str
    columns: tuple[str, ...]
    gives: str = ""
    """The column of which the row's value is given back; "" for none."""

    def for_one(self, marks: Sequence[str]) -> str:
        """The text for one row, with these marks for its parameters."""
        returning = f" RETURNING {self.gives}" if self.gives else ""
        return f"INSERT INTO {self.table} ({', '.join(self.columns)}) VALUES ({', '.join(marks)}){returning}"


@dataclass(frozen=True, eq=False)
class Update:
    """New values for the rows that a key names, declared as an Insert is; it gives nothing back."""

    table: str
    changed: tuple[str, ...]
    key: str

    @property
    def columns(self) -> tuple[str, ...]:
        """What has a parameter."""
        return (*self.changed, self.key)

    def for_one(self, marks: Sequence[str]) -> str:
        """The text for one key, with these marks for its parameters."""
        changes = ", ".join(f"{column} = {mark}" for column, mark in zip(self.changed, marks[:-1], strict=True))
        return f"UPDATE {self.table} SET {changes} WHERE {self.key} = {marks[-1]}"


RowStatement = Insert | Update


class Statement(NamedTuple):
    """One statement, as text or declared, and its parameters."""

    sql: str | RowStatement
    parameters: Parameters


class Batch(NamedTuple):
    """A statement that is declared, and the parameters of many rows; it gives nothing back."""

    sql: RowStatement
    rows: Sequence[Parameters]


class Database(Protocol):
    """One database, opened by this process."""

    claim_lock: str
    """What keeps two processes from picking one row: text to stand at the end of a claim's SELECT."""

    present_ms: str
    """The database's own clock in SQL: milliseconds since the epoch."""

    is_shared: bool
    """Whether other processes may be at work on it."""

    commit_seconds: Histogram
    """How long each commit took."""
    keeps_order: bool
    """Whether a write sees everything that was begun before it, committed or not."""

    async def prepare(self) -> None:
        """What makes it quicker for a long time of work; before anything is written."""

    def next_number(self) -> int | None:
        """The number of the next new job, which grows and is given once; None where the database itself gives it."""

    def write(self, *statements: Statement | Batch, is_urgent: bool = True, settle: Settle | None = None) -> Written:
        """Start one transaction of these statements; the future gives each one's rows once they are on disk.

        One that is not urgent may wait some milliseconds, to share the commit of the next that is. ``settle`` is called
        before whoever waits for the future goes on, also when that was cancelled; never before this returns.

        Writes are carried out in the order of these calls, many in one commit. Raises UniqueViolationError or
        StoreError for what the database refuses, CannotStoreError when it takes no writes at all; neighbours are
        unharmed.
        """

    def read(self, sql: str, parameters: Mapping[str, Any], *, is_scan: bool = False) -> Awaitable[Sequence[Row]]:
        """An awaitable of the rows of one SELECT on what is committed; one that walks many rows says so, and delays no
        other. Raises StoreError.
        """

    def notify(self, payload: str) -> None:
        """Tell the other processes that share the database, with the next commit at the latest."""

    def listen(self, receive: Callable[[str], None]) -> None:
        """Have ``receive`` called with each payload of the other processes, "" when some may have been missed."""

    async def close(self) -> None:
        """Finish what was begun and let go of every connection."""
