"""What the store asks of a database. The packages ``sqlite`` and ``postgres`` provide it.

Statements are written once, in the subset that both databases understand: named ``:parameters``, ``RETURNING``,
``ON CONFLICT``, times as milliseconds since the epoch, JSON as text. A status stands in the SQL as a literal, so that
partial indexes apply.
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
"""By name. A declared statement also takes a tuple, in the order of its columns."""


Answers = list[list[Row]]
"""The rows of each statement of a write."""
Written = asyncio.Future[Answers]
"""Done when the write is on disk."""
Settle = Callable[[Answers, ServiceError | None], None]
"""Is called with a write's answers, or with the reason why it was not carried out."""


@dataclass(frozen=True, eq=False)
class Insert:
    """A new row of a table. It is data, of which each database makes its own text, for one row or for many."""

    table: str
    columns: tuple[str, ...]
    gives: str = ""
    """The column whose value is given back; "" for none."""

    def for_one(self, marks: Sequence[str]) -> str:
        """The text for one row, with these marks for its parameters."""
        returning = f" RETURNING {self.gives}" if self.gives else ""
        return f"INSERT INTO {self.table} ({', '.join(self.columns)}) VALUES ({', '.join(marks)}){returning}"


@dataclass(frozen=True, eq=False)
class Update:
    """New values for the rows that a key names. It is declared like an Insert, and gives nothing back."""

    table: str
    changed: tuple[str, ...]
    key: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have a parameter, in the order of a row's values."""
        return (*self.changed, self.key)

    def for_one(self, marks: Sequence[str]) -> str:
        """The text for one key, with these marks for its parameters."""
        changes = ", ".join(f"{column} = {mark}" for column, mark in zip(self.changed, marks[:-1], strict=True))
        return f"UPDATE {self.table} SET {changes} WHERE {self.key} = {marks[-1]}"


RowStatement = Insert | Update


class Statement(NamedTuple):
    """One statement and its parameters."""

    sql: str | RowStatement
    """Text, or a declaration."""
    parameters: Parameters


class Batch(NamedTuple):
    """A declared statement and the parameters of many rows. It gives nothing back."""

    sql: RowStatement
    rows: Sequence[Parameters]


class LongText(NamedTuple):
    """Where a text is that may be long: a column of one row of a table whose key is ``seq``."""

    table: str
    column: str
    seq: int


class TextPiece(NamedTuple):
    """A piece of a text, in UTF-8, and the bytes of the whole."""

    data: bytes
    total: int


class Database(Protocol):
    """One database, opened by this process."""

    claim_lock: str
    """SQL for the end of a claim's SELECT: it keeps two processes from picking the same row."""

    share_lock: str
    """SQL for the end of a SELECT: no other process deletes the row before this transaction has ended."""

    text_size: str
    """SQL for what a stored text takes, of a ``{column}``, as exactly as is cheap."""

    present_ms: str
    """The database's own clock in SQL: milliseconds since the epoch."""

    contains_text: str
    """SQL for whether ``prompt`` contains ``:text``, in letters of either case. It compares bytes: LIKE begins anew at
    each letter, and looks at one long row for a minute, in which nothing ends it.
    """

    is_shared: bool
    """Whether other processes may use this database at the same time."""

    commit_seconds: Histogram
    """How long each commit took."""
    keeps_order: bool
    """Whether a write sees everything that was begun before it, committed or not."""

    async def prepare(self) -> None:
        """Do what makes a long run quicker. It is called before anything is written."""

    def next_number(self) -> int | None:
        """A number for a new job, larger than all before it; None where the database gives the numbers itself."""

    def write(self, *statements: Statement | Batch, is_urgent: bool = True, settle: Settle | None = None) -> Written:
        """Start one transaction of these statements; the future gives the rows of each once they are on disk.

        A write that is not urgent may wait some milliseconds, to share the commit of the next urgent one. ``settle`` is
        called before the future's waiters go on, also when the future was cancelled, and never before this returns.

        Writes are carried out in the order of these calls, many in one commit. The future raises UniqueViolationError
        or StoreError when the database refuses a statement, and CannotStoreError when it takes no writes at all. An
        error of one write does not touch the others.
        """

    def read(self, sql: str, parameters: Mapping[str, Any], *, is_scan: bool = False) -> Awaitable[Sequence[Row]]:
        """The rows of one SELECT on what is committed. A SELECT that walks many rows must say that it is a scan, so
        that it delays no other. Awaiting it raises StoreError.
        """

    def piece(self, text: LongText, start: int, size: int) -> Awaitable[TextPiece | None]:
        """Up to ``size`` bytes of a text, from byte ``start`` on; None when its row is not there. Awaiting it raises
        StoreError.
        """

    async def used_bytes(self) -> int:
        """What all that is stored takes, without the room that is free for more. Raises StoreError."""

    async def give_back(self, above_bytes: int) -> bool:
        """Return some free room to the disk where more than so much is taken of it; whether there may be more to give.
        Raises CannotStoreError.
        """

    def erase(self) -> Awaitable[bool]:
        """Have nothing left in the files of what was deleted before this call; whether that is certain. It begins at
        once, may take some seconds, and goes on by itself when nobody waits, and where it could not be done so soon.
        """

    def notify(self, payload: str) -> None:
        """Tell the other processes that share the database, soon; nothing happens where it is not shared."""

    def listen(self, receive: Callable[[str], None]) -> None:
        """Have ``receive`` called with each payload of the other processes, and with "" when some may be missing."""

    async def close(self) -> None:
        """Finish the writes that were begun, and close every connection."""
