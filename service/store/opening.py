"""Which database it is."""

from __future__ import annotations

from service.config import DatabaseConfig
from service.store.database import Database
from service.store.sqlite import SqliteDatabase


async def open_database(config: DatabaseConfig) -> Database:
    """Open the configured database. Raises DatabaseUnusableError."""
    return await SqliteDatabase.open(config.path)
