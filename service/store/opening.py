"""Opens the database that is configured."""

from __future__ import annotations

from service.config import DatabaseConfig
from service.errors import DatabaseUnusableError
from service.store.database import Database
from service.store.sqlite.database import SqliteDatabase


async def open_database(config: DatabaseConfig) -> Database:
    """Open the configured database. Raises DatabaseUnusableError."""
    if not config.url:
        return await SqliteDatabase.open(config.path)
    try:
        # The driver is needed, and loaded, only where PostgreSQL is used.
        from service.store.postgres.database import PostgresDatabase
    except ModuleNotFoundError as error:
        raise DatabaseUnusableError(
            f"PostgreSQL (database.url or DATABASE_URL): {error.name} is not installed; "
            "install the extra: pip install 'ollama-corral[postgres]'"
        ) from error
    return await PostgresDatabase.open(config.url)
