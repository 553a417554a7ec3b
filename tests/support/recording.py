"""What a database is asked, and how many rows it reads for that."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from service.store.database import Batch, Database, LongText, Row, Settle, Statement, TextPiece, Written
from tests.support.databases import Place


class Recording:
    """A database that keeps what it was asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.claim_lock = database.claim_lock
        self.share_lock = database.share_lock
        self.text_size = database.text_size
        self.commit_seconds = database.commit_seconds
        self.present_ms = database.present_ms
        self.contains_text = database.contains_text
        self.is_shared = database.is_shared
        self.keeps_order = database.keeps_order
        self.statements: list[Statement] = []

    async def prepare(self) -> None:
        await self._database.prepare()

    def next_number(self) -> int | None:
        return self._database.next_number()

    def write(self, *statements: Statement | Batch, is_urgent: bool = True, settle: Settle | None = None) -> Written:
        self.statements += (one for one in statements if isinstance(one, Statement))
        return self._database.write(*statements, is_urgent=is_urgent, settle=settle)

    def read(self, sql: str, parameters: Mapping[str, Any], *, is_scan: bool = False) -> Awaitable[Sequence[Row]]:
        self.statements.append(Statement(sql, parameters))
        return self._database.read(sql, parameters, is_scan=is_scan)

    def piece(self, text: LongText, start: int, size: int) -> Awaitable[TextPiece | None]:
        # The same look-up, however the database reads a part of what it finds.
        table, column, seq = text
        self.statements.append(Statement(f"SELECT {column} FROM {table} WHERE seq = :seq", {"seq": seq}))
        return self._database.piece(text, start, size)

    async def used_bytes(self) -> int:
        return await self._database.used_bytes()

    async def give_back(self, above_bytes: int) -> bool:
        return await self._database.give_back(above_bytes)

    def erase(self) -> Awaitable[bool]:
        return self._database.erase()

    def notify(self, payload: str) -> None:
        self._database.notify(payload)

    def listen(self, receive: Callable[[str], None]) -> None:
        self._database.listen(receive)

    async def close(self) -> None:
        await self._database.close()


_STEPS = 3
"""Steps of SQLite's machine after which it tells of them; it takes as many or more for each row that it looks at."""


async def rows_read(place: Place, database: Database, statements: Sequence[Statement]) -> int:
    """How many rows and entries of indexes these SELECTs look at; for SQLite an upper bound."""
    read = 0
    for statement in statements:
        assert isinstance(statement.sql, str)
        assert isinstance(statement.parameters, Mapping)
        if place.is_sqlite:
            read += _told_by_sqlite(place, statement.sql, statement.parameters)
        else:
            told = await database.read(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}", statement.parameters)
            read += _told_by_postgres(json.loads(told[0][0])[0]["Plan"])
    return read


def _told_by_sqlite(place: Place, sql: str, parameters: Mapping[str, Any]) -> int:
    told = 0

    def tell() -> int:
        nonlocal told
        told += 1
        return 0

    connection = sqlite3.connect(place.config.path)
    try:
        connection.set_progress_handler(tell, _STEPS)
        connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()
    return told


def _told_by_postgres(plan: dict[str, Any]) -> int:
    own = 0
    if "Scan" in plan["Node Type"]:
        own = plan["Actual Loops"] * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))
    return int(own) + sum(map(_told_by_postgres, plan.get("Plans", [])))
