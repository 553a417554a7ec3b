"""The processes that share the work: each says now and then that it lives, and who is silent too long is dead.

Times are the database's own, so that it does not matter what the machines' clocks say.
"""

from __future__ import annotations

from service.store.database import Database, Statement

_BEAT = """
    INSERT INTO workers (id, started_at, heartbeat_at) VALUES (:id, {present_ms}, {present_ms})
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = {present_ms}
"""
# Who owns running jobs, or holds the connections of callers that wait, and has not been heard of.
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
"""As many times the silence after which a process is dead."""


class ProcessStore:
    """What a process says of itself, and knows of the others."""

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._worker = worker

    async def beat(self) -> None:
        """Say that this process lives."""
        await self._database.write(self._statement(_BEAT, id=self._worker))

    async def leave(self) -> None:
        """Say that it works on nothing any more."""
        await self._database.write(self._statement(_LEAVE, id=self._worker))

    async def lost(self, dead_after_seconds: float) -> list[str]:
        """The processes, this one aside, that own jobs and have not been heard of for so long, or never."""
        silence = {"own": self._worker, "silence_ms": int(dead_after_seconds * 1000)}
        return [row[0] for row in await self._database.read(self._sql(_LOST), silence)]

    async def forget(self, dead_after_seconds: float) -> None:
        """Remove the rows of processes that have been dead for long."""
        silence_ms = int(dead_after_seconds * 1000) * _FORGOTTEN_AFTER
        await self._database.write(self._statement(_FORGET, silence_ms=silence_ms))

    def _statement(self, sql: str, **parameters: str | int) -> Statement:
        return Statement(self._sql(sql), parameters)

    def _sql(self, sql: str) -> str:
        return sql.replace("{present_ms}", self._database.present_ms)
