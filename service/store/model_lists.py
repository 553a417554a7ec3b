"""The models that each backend told of last. They are stored so that lists can be shown after a restart, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from service.store.database import Database, Statement

MOST_BYTES = 4 << 20
"""A list that is longer, as JSON, is not kept: thousands of models have less."""

_LOAD = "SELECT entries, told_at FROM model_lists WHERE backend = :backend"
_PUT = """
    INSERT INTO model_lists (backend, entries, told_at) VALUES (:backend, :entries, :told_at)
    ON CONFLICT (backend) DO UPDATE SET entries = :entries, told_at = :told_at
"""
_PUT_TIME = "UPDATE model_lists SET told_at = :told_at WHERE backend = :backend"
_DROP = "DELETE FROM model_lists WHERE backend = :backend"
_PRUNE = "DELETE FROM model_lists WHERE told_at < :before"


class KeptList(NamedTuple):
    """The entries of a list as the backend sent them, and when it last did (milliseconds since the epoch)."""

    entries: Sequence[dict[str, Any]]
    told_at: int


class ModelListStore:
    """A list for each backend, by its address."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, backend: str) -> KeptList | None:
        """The list that is kept of this backend."""
        rows = await self._database.read(_LOAD, {"backend": backend})
        return KeptList(from_json(rows[0][0]), rows[0][1]) if rows else None

    async def put(self, backend: str, kept: KeptList) -> bool:
        """Keep a list in place of the one before; says whether it is. One that is too long is not, and then none is.
        Raises StoreError or CannotStoreError.
        """
        entries = to_json(kept.entries)
        if len(entries) > MOST_BYTES:
            await self._database.write(Statement(_DROP, {"backend": backend}))
            return False
        row = {"backend": backend, "entries": entries.decode(), "told_at": kept.told_at}
        await self._database.write(Statement(_PUT, row))
        return True

    async def put_time(self, backend: str, told_at: int) -> None:
        """Note that the list that is kept was told again. Raises StoreError or CannotStoreError."""
        await self._database.write(Statement(_PUT_TIME, {"backend": backend, "told_at": told_at}))

    async def prune(self, before: int) -> None:
        """Delete the lists that were last told before this. Raises StoreError or CannotStoreError."""
        await self._database.write(Statement(_PRUNE, {"before": before}))
