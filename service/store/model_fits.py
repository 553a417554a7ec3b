"""Which models each backend was seen to hold at once, and which not. It is stored for the time after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic_core import from_json, to_json

from service.store.database import Database, Statement

_LOAD = "SELECT version, fitting, unfit FROM model_fits WHERE backend = :backend"
_PUT = """
    INSERT INTO model_fits (backend, version, fitting, unfit, used_at)
    VALUES (:backend, :version, :fitting, :unfit, :used_at)
    ON CONFLICT (backend) DO UPDATE
    SET version = :version, fitting = :fitting, unfit = :unfit, used_at = :used_at
"""
_USE = "UPDATE model_fits SET used_at = :used_at WHERE backend = :backend"
_PRUNE = "DELETE FROM model_fits WHERE used_at < :before"


class KeptFits(NamedTuple):
    """Sets of models, which are named by digest."""

    version: str
    """That of the backend's Ollama."""
    fitting: Sequence[Sequence[Sequence[str]]]
    """Sets of [digest, options] that fit together."""
    unfit: Sequence[tuple[Sequence[str], int]]
    """Sets of digests that do not, and until when that holds (milliseconds since the epoch)."""


class ModelFitStore:
    """What is known of each backend, by its address."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, backend: str) -> KeptFits | None:
        """What is kept of this backend."""
        rows = await self._database.read(_LOAD, {"backend": backend})
        if not rows:
            return None
        version, fitting, unfit = rows[0]
        return KeptFits(version, from_json(fitting), [(digests, until) for digests, until in from_json(unfit)])

    async def put(self, backend: str, kept: KeptFits, now: int) -> None:
        """Keep this in place of what was kept before. Raises StoreError or CannotStoreError."""
        row = {
            "backend": backend,
            "version": kept.version,
            "fitting": to_json(kept.fitting).decode(),
            "unfit": to_json(kept.unfit).decode(),
            "used_at": now,
        }
        await self._database.write(Statement(_PUT, row))

    async def note_use(self, backend: str, now: int) -> None:
        """Note that this backend is still there. Raises StoreError or CannotStoreError."""
        await self._database.write(Statement(_USE, {"backend": backend, "used_at": now}))

    async def prune(self, before: int) -> None:
        """Delete what is kept of backends that were last used before this. Raises StoreError or CannotStoreError."""
        await self._database.write(Statement(_PRUNE, {"before": before}))
