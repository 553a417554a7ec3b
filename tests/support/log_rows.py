"""The log of requests as it is stored."""

from __future__ import annotations

from service.store.database import Database
from service.store.request_log import LogRow


async def written(database: Database) -> list[LogRow]:
    """All rows, oldest first."""
    columns = ", ".join(LogRow._fields)
    return [LogRow(*found) for found in await database.read(f"SELECT {columns} FROM usage_log ORDER BY seq", {})]
