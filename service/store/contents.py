"""What jobs hold of text: deleted together with their rows, or before them.

Only jobs that have ended are touched. Nothing is written to them any more: each statement that writes what a job holds
names the row that it expects.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

from service.job import Job
from service.store.database import Database, Row, Statement
from service.store.job_queries import job_of
from service.store.job_statements import COLUMNS

AT_ONCE = 50
"""Jobs of one transaction."""
_HOUR_MS = 3_600_000
_SIZE = re.compile(r"\{size of (\w+)\}")

_IDS = ", ".join(f":id{number}" for number in range(AT_ONCE))
# The time is written so that no index serves it: the jobs are to be found by their ids.
_THESE = f"id IN ({_IDS}) AND finished_at + 0 > 0"
_COUNT_PURGED = f"""
    INSERT INTO purged_requests (key_id, created_at)
    SELECT key_id, created_at FROM jobs WHERE {_THESE} AND coalesce(key_id, '') <> '' AND created_at >= :since
"""
_FORGET_PURGED = "DELETE FROM purged_requests WHERE created_at < :since"
_PURGE = f"DELETE FROM jobs WHERE {_THESE} RETURNING {COLUMNS}"
_PURGE_KEYS = f"""
    DELETE FROM idempotency WHERE job_id IN ({_IDS})
    AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = idempotency.job_id)
"""
_PURGE_PIECES = f"""
    DELETE FROM reply_pieces WHERE job_id IN ({_IDS})
    AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = reply_pieces.job_id)
"""

_EMPTY = f"""
    UPDATE jobs SET preview = '', error_message = NULL, contents_deleted_at = :now
    WHERE {_THESE} AND contents_deleted_at IS NULL RETURNING {COLUMNS}
"""
_EMPTIED = f"""
    WITH these AS MATERIALIZED (SELECT seq, id FROM jobs WHERE id IN ({_IDS}) AND contents_deleted_at + 0 > 0)
"""
_DELETE_BODIES = f"""{_EMPTIED}
    DELETE FROM bodies WHERE seq IN (SELECT seq FROM these) RETURNING {{size of prompt}} + {{size of request}}
"""
_DELETE_RESULTS = f"""{_EMPTIED}
    DELETE FROM results WHERE seq IN (SELECT seq FROM these) RETURNING {{size of segments}}
"""
_DELETE_KEYS = f"""{_EMPTIED}
    DELETE FROM idempotency WHERE job_id IN (SELECT id FROM these) RETURNING {{size of reply_body}}
"""
_DELETE_PIECES = f"""{_EMPTIED}
    DELETE FROM reply_pieces WHERE job_id IN (SELECT id FROM these) RETURNING {{size of data}}
"""

_DUE = """
    SELECT id, finished_at, size FROM jobs
    WHERE finished_at + retention_ms <= :now AND retention_ms IS NOT NULL AND finished_at IS NOT NULL
      AND contents_deleted_at IS NULL
    ORDER BY finished_at + retention_ms LIMIT :most
"""
_NEVER_BEGUN = """
    SELECT id, finished_at, size FROM jobs
    WHERE finished_at + 1 <= :before AND status = 'cancelled' AND started_at IS NULL AND contents_deleted_at IS NULL
    ORDER BY finished_at + 1 LIMIT :most
"""
_OLDEST = """
    SELECT id, finished_at, size FROM jobs
    WHERE finished_at >= :since AND finished_at IS NOT NULL AND contents_deleted_at IS NULL
    ORDER BY finished_at LIMIT :most
"""
# The first one to whom it was sent counts. A caller may have all of it a moment before the job's end is stored.
_SENT = """
    UPDATE jobs SET retention_ms = CASE WHEN finished_at IS NULL THEN :kept ELSE :until - finished_at END
    WHERE id = :id AND retention_ms > CASE WHEN finished_at IS NULL THEN :kept ELSE :until - finished_at END
"""


class Candidate(NamedTuple):
    """A job that has ended, and has contents."""

    id: str
    finished_at: int
    size: int
    """Bytes of its request's body."""


class Emptied(NamedTuple):
    """The rows of jobs as they are without contents, and about how much these took."""

    jobs: list[Job]
    freed_bytes: int


class ContentStore:
    """Deletes what jobs hold of text."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._delete = [
            _SIZE.sub(lambda found: database.text_size.format(column=found[1]), sql)
            for sql in (_DELETE_BODIES, _DELETE_RESULTS, _DELETE_KEYS, _DELETE_PIECES)
        ]

    async def purge(self, ids: Sequence[str], now: int) -> list[Job]:
        """Delete up to AT_ONCE jobs that have ended, with everything that belongs to them; which it were. Raises
        CannotStoreError.
        """
        row = {**_row(ids), "since": now - _HOUR_MS}
        statements = (_COUNT_PURGED, _PURGE, _PURGE_KEYS, _PURGE_PIECES, _FORGET_PURGED)
        _, rows, *_ = await self._database.write(*(Statement(sql, row) for sql in statements))
        return [job_of(one) for one in rows]

    async def empty(self, ids: Sequence[str], now: int) -> Emptied:
        """Delete the contents of up to AT_ONCE jobs that have ended, and leave their rows. Raises CannotStoreError."""
        row = {**_row(ids), "now": now}
        emptied, *deleted = await self._database.write(*(Statement(sql, row) for sql in (_EMPTY, *self._delete)))
        return Emptied([job_of(one) for one in emptied], sum(map(_sum, deleted)))

    async def due(self, now: int) -> list[Candidate]:
        """Jobs whose keys let their contents go by now."""
        return await self._candidates(_DUE, {"now": now})

    async def never_begun(self, before: int) -> list[Candidate]:
        """Jobs that were cancelled before then while they waited, the oldest first."""
        return await self._candidates(_NEVER_BEGUN, {"before": before})

    async def oldest(self, since: int) -> list[Candidate]:
        """Jobs that have ended, the oldest first; none that ended before ``since``."""
        return await self._candidates(_OLDEST, {"since": since})

    async def note_sent(self, job_id: str, now: int, kept_ms: int) -> None:
        """The result was sent whole: the contents go so long after that. Raises CannotStoreError."""
        row = {"id": job_id, "kept": kept_ms, "until": now + kept_ms}
        await self._database.write(Statement(_SENT, row), is_urgent=False)

    async def used_bytes(self) -> int:
        """What all that is stored takes."""
        return await self._database.used_bytes()

    async def give_back(self, above_bytes: int) -> bool:
        """Return some free room to the disk, see :meth:`service.store.database.Database.give_back`."""
        return await self._database.give_back(above_bytes)

    def erase(self) -> Awaitable[bool]:
        """Have nothing left in the files of what was deleted before, as
        :meth:`service.store.database.Database.erase` says.
        """
        return self._database.erase()

    async def _candidates(self, sql: str, row: dict[str, Any]) -> list[Candidate]:
        rows = await self._database.read(sql, {**row, "most": AT_ONCE}, is_scan=True)
        return [Candidate(*found) for found in rows]


def _row(ids: Sequence[str]) -> dict[str, Any]:
    return {f"id{number}": ids[min(number, len(ids) - 1)] for number in range(AT_ONCE)}


def _sum(rows: Sequence[Row]) -> int:
    return sum(row[0] or 0 for row in rows)
