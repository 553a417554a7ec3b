"""Keys in the database: their hashes, never the keys themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from service.key import Key, Role
from service.store.audit import AuditRow, statement_for_key, statement_of
from service.store.database import Database, Row, Statement
from service.store.texts import storable

_COLUMNS = ", ".join(Key._fields)
_VALUES = ", ".join(":" + field for field in Key._fields)

_INSERT = f"INSERT INTO keys ({_COLUMNS}, hash) VALUES ({_VALUES}, :hash)"
_FIXED = ("id", "created_at", "last_used_at")
_PUT = f"{_INSERT} ON CONFLICT (id) DO UPDATE SET hash = :hash, " + ", ".join(
    f"{field} = :{field}" for field in Key._fields if field not in _FIXED
)
_REVOKE = f"UPDATE keys SET is_active = 0, keeps_jobs = :keeps_jobs WHERE id = :id RETURNING {_COLUMNS}"
_TOUCH = "UPDATE keys SET last_used_at = :now WHERE id = :id AND (last_used_at IS NULL OR last_used_at < :now)"
_SET = """
    INSERT INTO settings (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = :value
"""
_SET_ONCE = "INSERT INTO settings (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING"
# Purged jobs count, too: nobody gets round a limit by purging.
_REQUESTS = """
    SELECT created_at / 1000, count(*) FROM (
        SELECT created_at FROM jobs WHERE key_id = :key_id AND created_at >= :since
        UNION ALL
        SELECT created_at FROM purged_requests WHERE key_id = :key_id AND created_at >= :since
    ) AS made GROUP BY 1
"""
_VERSION = "keys_version"


class KeyStore:
    """Keys, and the settings that belong to them. Every change of a key stores a new version with it, and who did it:
    all of it or nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, key: Key, hashed: str, version: str, audit: AuditRow) -> None:
        """Store a new key. Raises UniqueViolationError when there is one with this id or hash."""
        written = Statement(_INSERT, _row(key, hashed)), _set(_VERSION, version)
        await self._database.write(*written, statement_of(audit))

    async def put(self, key: Key, hashed: str, version: str, audit: AuditRow) -> None:
        """Store a key under its id. It replaces a key that has this id."""
        written = Statement(_PUT, _row(key, hashed)), _set(_VERSION, version)
        await self._database.write(*written, statement_of(audit))

    async def revoke(self, key_id: str, version: str, audit: AuditRow, *, keeps_jobs: bool) -> Key | None:
        """Make a key inactive. Gives the key as it is then; None when there is none with this id."""
        revoked = Statement(_REVOKE, {"id": storable(key_id), "keeps_jobs": int(keeps_jobs)})
        rows, *_ = await self._database.write(revoked, _set(_VERSION, version), statement_for_key(audit))
        return _key(rows[0]) if rows else None

    async def all(self) -> list[tuple[str, Key]]:
        """Every key with its hash, revoked ones too, oldest first."""
        rows = await self._database.read(f"SELECT {_COLUMNS}, hash FROM keys ORDER BY created_at, id", {})
        return [(row[-1], _key(row)) for row in rows]

    async def version(self) -> str | None:
        """Changes whenever a key does."""
        return (await self.settings()).get(_VERSION)

    async def settings(self) -> Mapping[str, str]:
        rows = await self._database.read("SELECT name, value FROM settings", {})
        return {row[0]: row[1] for row in rows}

    async def set(self, name: str, value: str) -> None:
        await self._database.write(_set(name, value))

    async def set_once(self, name: str, value: str) -> None:
        """Store the setting unless there is one with this name."""
        await self._database.write(Statement(_SET_ONCE, {"name": name, "value": value}))

    async def requests_by_second(self, key_id: str, since: int) -> dict[int, int]:
        """How many jobs the key has made since ``since`` (milliseconds), by seconds since the epoch."""
        rows = await self._database.read(_REQUESTS, {"key_id": key_id, "since": since})
        return {int(row[0]): int(row[1]) for row in rows}

    async def touch(self, used: Iterable[tuple[str, int]]) -> None:
        """Note when keys were last used (id, milliseconds since the epoch), all in one write."""
        await self._database.write(*(Statement(_TOUCH, {"id": key_id, "now": now}) for key_id, now in used))


def _set(name: str, value: str) -> Statement:
    return Statement(_SET, {"name": name, "value": value})


def _row(key: Key, hashed: str) -> dict[str, Any]:
    return {
        **key._asdict(),
        "name": storable(key.name),
        "role": str(key.role),
        "models": json.dumps(key.models),
        "weight": float(key.weight),
        "is_active": int(key.is_active),
        "keeps_jobs": int(key.keeps_jobs),
        "hash": hashed,
    }


def _key(row: Row) -> Key:
    key = Key._make(row[: len(Key._fields)])
    return key._replace(
        role=Role(key.role),
        models=tuple(json.loads(str(key.models))),
        is_active=bool(key.is_active),
        keeps_jobs=bool(key.keeps_jobs),
    )
