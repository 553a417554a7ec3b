"""Writes and reads that wait for their turn on a connection of either database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import ServiceError, StoreError
from service.store.database import Answers, Batch, LongText, Row, Settle, Statement, Written
from service.store.job_statements import INSERT

_log = logging.getLogger(__name__)

NEW_JOB, NEW_JOB_AND_MORE, OTHER = 0, 1, 2
"""The ranks of writes by their first statement. New jobs are written before everything else: no other write in the same
group can be harmed when they are there already.
"""


class Write:
    """The statements of one transaction, and the future that waits for them."""

    __slots__ = ("_settle", "answers", "error", "future", "is_urgent", "rank", "statements")

    def __init__(
        self,
        statements: Sequence[Statement | Batch],
        future: Written,
        *,
        is_urgent: bool = True,
        settle: Settle | None = None,
    ) -> None:
        self.statements = statements
        self.is_urgent = is_urgent
        self.rank = OTHER if statements[0].sql is not INSERT else NEW_JOB if len(statements) == 1 else NEW_JOB_AND_MORE
        self.future = future
        self.answers: Answers = []
        self.error: ServiceError | None = None
        self._settle = settle

    def settle(self) -> None:
        if self._settle is not None:
            try:
                self._settle(self.answers, self.error)
            except Exception as error:
                # The error must not reach the other writes of the group.
                _log.error("what follows a write went wrong", exc_info=error)
                self.error = StoreError(f"internal error: {type(error).__name__}")
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.answers)


class Read:
    """One SELECT, and the future that waits for it."""

    __slots__ = ("error", "future", "parameters", "rows", "sql")

    def __init__(self, sql: str, parameters: Mapping[str, Any], future: asyncio.Future[list[Row]]) -> None:
        self.sql = sql
        self.parameters = parameters
        self.future = future
        self.rows: list[Row] = []
        self.error: ServiceError | None = None

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.rows)


class PieceRead(Read):
    """A piece of a text that is read without the rest of it; its one row, if there is any, is that of a TextPiece."""

    __slots__ = ("size", "start", "text")

    def __init__(self, text: LongText, start: int, size: int, future: asyncio.Future[list[Row]]) -> None:
        super().__init__("", {}, future)
        self.text = text
        self.start = start
        self.size = size
