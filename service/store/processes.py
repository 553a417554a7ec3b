"""The processes that share the work. Each says now and then that it lives; one that is silent for too long is dead.

Times are taken from the database's clock, so the clocks of the machines need not agree.
"""

from __future__ import annotations

from service.store.database import Database, Statement

_BEAT = """
    INSERT INTO workers (id, started_at, heartbeat_at) VALUES (:id, {present_ms}, {present_ms})
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = {present_ms}
"""
# Processes that own running jobs, or hold the connections of waiting callers, and have been silent for too long.
_LOST = """
    WITH busy AS MATERIALIZED (
        SELECT worker AS id FROM jobs WHERE status = 'processing' AND worker <> :own
        UNION
        SELECT caller_at FROM jobs WHERE status = 'queued' AND caller_at IS NOT NULL AND caller_at <> :own
    )
    SELECT id FROM busy
    WHERE NOT EXISTS (
        SELECT 1 FROM workers WHERE workers.id = busy.id AND heartbeat_at >= {present_ms} - :silence_ms
    )
"""
_LEAVE = "DELETE FROM workers WHERE id = :id"
_FORGET = "DELETE FROM workers WHERE heartbeat_at < {present_ms} - :silence_ms"

_FORGOTTEN_AFTER = 20
"""A row is kept for so many times the silence after which a process is dead."""


class ProcessStore:
    """The heartbeat of this process, and what is known of the others."""

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._worker = worker

    async def beat(self) -> None:
        """Say that this process lives."""
        await self._database.write(self._statement(_BEAT, id=self._worker))

    async def leave(self) -> None:
        """Say that this process has stopped."""
        await self._database.write(self._statement(_LEAVE, id=self._worker))

    async def lost(self, dead_after_seconds: float) -> list[str]:
        """The other processes that own jobs and have been silent for so long, or always."""
        silence = {"own": self._worker, "silence_ms": int(dead_after_seconds * 1000)}
        return [row[0] for row in await self._database.read(self._sql(_LOST), silence)]

    async def forget(self, dead_after_seconds: float) -> None:
        """Delete the rows of processes that have been dead for long."""
        silence_ms = int(dead_after_seconds * 1000) * _FORGOTTEN_AFTER
        await self._database.write(self._statement(_FORGET, silence_ms=silence_ms))

    def _statement(self, sql: str, **parameters: str | int) -> Statement:
        return Statement(self._sql(sql), parameters)

    def _sql(self, sql: str) -> str:
        return sql.replace("{present_ms}", self._database.present_ms)
