"""The audit in the database: a row for each action, written with the action where that is a write itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from service.store.database import Database, Row, Statement
from service.store.texts import storable

SIGN_IN_FAILED = "sign_in_failed"
KEPT_FAILURES = 100_000
"""Rows of failed sign-ins that are kept at most; all else is kept for its time, whoever tries whatever keys."""


class AuditRow(NamedTuple):
    """Who did what, when and from where. Times are milliseconds since the epoch."""

    at: int
    last_at: int
    """When it happened last; the same as ``at`` for all but what happened several times."""
    action: str
    actor: str
    """What the actor is: see service.audit.Actor."""
    key_id: str | None
    key_name: str | None
    """The key's name as it was then."""
    person: str | None
    address: str | None
    subject: str | None
    """What it was done to: a key's id, a backend's name, a job's id."""
    subject_name: str | None
    details: str
    """Further facts, as a JSON object."""
    times: int = 1
    slot: str | None = None
    """What rows that are counted together have in common; None for a row of its own."""


class AuditEntry(NamedTuple):
    """A row as it is stored, with its number."""

    seq: int
    row: AuditRow


class AuditFilter(NamedTuple):
    """Which rows are wanted; None: without that condition."""

    action: str | None = None
    key_id: str | None = None
    """Of the key that did it, or to which it was done."""
    since: int | None = None
    until: int | None = None
    before: int | None = None
    """A number: only rows with a smaller one."""


_COLUMNS = ", ".join(AuditRow._fields)
_VALUES = ", ".join(":" + field for field in AuditRow._fields)
_INSERT = f"INSERT INTO audit ({_COLUMNS}) VALUES ({_VALUES})"
_COUNT = f"""
    {_INSERT} ON CONFLICT (slot) WHERE slot IS NOT NULL
    DO UPDATE SET times = audit.times + excluded.times, last_at = excluded.last_at
"""
# Only what is there can be revoked. Its name is not known to whoever revokes it without reading all keys.
_OF_A_KEY = f"""
    INSERT INTO audit ({_COLUMNS})
    SELECT {_VALUES.replace(":subject_name", "keys.name")} FROM keys WHERE keys.id = :subject
"""
_PRUNE = """
    DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE at < :before ORDER BY at LIMIT :most) RETURNING seq
"""
_PRUNE_FAILURES = f"""
    DELETE FROM audit WHERE seq IN (
        SELECT seq FROM audit WHERE action = '{SIGN_IN_FAILED}' AND seq <= (
            SELECT seq FROM audit WHERE action = '{SIGN_IN_FAILED}' ORDER BY seq DESC LIMIT 1 OFFSET :kept
        ) ORDER BY seq LIMIT :most
    ) RETURNING seq
"""


def statement_of(row: AuditRow) -> Statement:
    """What stores the row, for a write of its own or for that of the action itself."""
    return Statement(_INSERT if row.slot is None else _COUNT, _parameters(row))


def statement_for_key(row: AuditRow) -> Statement:
    """What stores the row with the name of its subject, a key, and stores nothing when there is no such key."""
    parameters = _parameters(row)
    del parameters["subject_name"]
    return Statement(_OF_A_KEY, parameters)


class AuditStore:
    """The rows of all actions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, rows: Sequence[AuditRow]) -> None:
        """Store rows, all or none. Raises CannotStoreError."""
        await self._database.write(*map(statement_of, rows))

    async def page(self, which: AuditFilter, most: int, skipped: int) -> tuple[list[AuditEntry], int]:
        """A page of rows, newest first, and how many there are of them in all."""
        where, parameters = _where(which)
        [counted] = await self._database.read(f"SELECT count(*) FROM audit WHERE {where}", parameters, is_scan=True)
        rows = await self._database.read(
            f"SELECT seq, {_COLUMNS} FROM audit WHERE {where} ORDER BY seq DESC LIMIT :most OFFSET :skipped",
            {**parameters, "most": most, "skipped": skipped},
            is_scan=True,
        )
        return [_entry(row) for row in rows], int(counted[0])

    async def prune(self, before: int, most: int = 500, kept_failures: int = KEPT_FAILURES) -> int:
        """Delete a batch of rows older than ``before``, or of the oldest failed sign-ins beyond those that are kept;
        how many it was.
        """
        old, failures = await self._database.write(
            Statement(_PRUNE, {"before": before, "most": most}),
            Statement(_PRUNE_FAILURES, {"kept": kept_failures, "most": most}),
        )
        return len(old) + len(failures)


def _where(which: AuditFilter) -> tuple[str, dict[str, Any]]:
    conditions = {
        "action": "action = :action",
        "key_id": "(key_id = :key_id OR subject = :key_id)",
        "since": "at >= :since",
        "until": "at < :until",
        "before": "seq < :before",
    }
    given = {name: value for name, value in which._asdict().items() if value is not None}
    return " AND ".join(["seq > 0", *(conditions[name] for name in given)]), given


def _parameters(row: AuditRow) -> dict[str, Any]:
    return {name: storable(value) if isinstance(value, str) else value for name, value in row._asdict().items()}


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(int(row[0]), AuditRow._make(row[1:]))
