"""The log of requests in the database: written in batches, summed up for statistics, pruned after a time."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from service.job import Job
from service.store.database import Batch, Database, Insert, Row, Statement, Update
from service.store.texts import storable

_DAY_MS = 86_400_000
_MOST_GROUPS = 1_000
"""Statistics name at most so many owners, the busiest ones."""


class LogRow(NamedTuple):
    """One request of a route that makes jobs; what its job came to is added when that ends. Times are milliseconds
    (since the epoch).
    """

    at: int
    key_id: str | None
    owner: str
    endpoint: str
    method: str
    status_code: int
    model: str | None
    job_id: str | None
    response_ms: int
    job_status: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    queue_ms: int | None = None

    def ended_as(self, job: Job) -> LogRow:
        """This row, with what its job came to."""
        return self._replace(**outcome_of(job)._asdict())


class Scope(NamedTuple):
    """Whose requests are meant: those of one key, of one person behind it, of one client without a key, or all."""

    key_id: str | None = None
    owner: str | None = None


class Sums(NamedTuple):
    """How many requests there were and what they took."""

    requests: int = 0
    successful: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, other: Sums) -> Sums:
        return Sums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Group(NamedTuple):
    """The requests of one key for one model on one day (days since the epoch)."""

    key_id: str | None
    model: str | None
    day: int
    sums: Sums


class LoggedOutcome(NamedTuple):
    """What a log row says of a job that has ended."""

    job_status: str
    prompt_tokens: int | None
    completion_tokens: int | None
    queue_ms: int | None


_INSERT = Insert("usage_log", LogRow._fields)
_END = Update("usage_log", LoggedOutcome._fields, key="job_id")
# A request is successful only if its job is.
_SUCCESSFUL = "status_code < 400 AND (job_status IS NULL OR job_status NOT IN ('failed', 'cancelled'))"
_SUMS = f"""
    count(*), sum(CASE WHEN {_SUCCESSFUL} THEN 1 ELSE 0 END), sum(coalesce(prompt_tokens, 0)),
    sum(coalesce(completion_tokens, 0))
"""
_PRUNE = """
    DELETE FROM usage_log WHERE seq IN (SELECT seq FROM usage_log WHERE at < :before ORDER BY at LIMIT :most)
    RETURNING seq
"""


class RequestLogStore:
    """The log of requests and its periods."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, rows: Sequence[LogRow]) -> Awaitable[object]:
        """Store new rows, all or none."""
        return self._database.write(Batch(_INSERT, [_storable(row) for row in rows]))

    def end(self, jobs: Sequence[Job]) -> Awaitable[object]:
        """Add to the rows of these jobs what became of the jobs."""
        return self._database.write(Batch(_END, [(*outcome_of(job), job.id) for job in jobs]))

    async def period_start(self) -> int | None:
        """When the present period began; None when none ever did."""
        rows = await self._database.read("SELECT max(started_at) FROM usage_periods", {})
        return None if rows[0][0] is None else int(rows[0][0])

    async def begin_period(self, now: int, key_id: str | None) -> None:
        """Begin the statistics anew. The log stays."""
        await self._database.write(
            Statement(
                "INSERT INTO usage_periods (started_at, key_id) VALUES (:now, :key_id)", {"now": now, "key_id": key_id}
            )
        )

    async def groups(self, scope: Scope, since: int) -> list[Group]:
        """The sums by key, model and day."""
        where, parameters = _where(scope, since)
        rows = await self._database.read(
            f"SELECT key_id, model, at / {_DAY_MS}, {_SUMS} FROM usage_log WHERE {where} GROUP BY 1, 2, 3",
            parameters,
            is_scan=True,
        )
        return [Group(row[0], row[1], int(row[2]), _sums(row[3:])) for row in rows]

    async def owners(self, scope: Scope, since: int) -> list[tuple[str, Sums]]:
        """The sums of the busiest owners."""
        where, parameters = _where(scope, since)
        rows = await self._database.read(
            f"SELECT owner, {_SUMS} FROM usage_log WHERE {where} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_MOST_GROUPS}",
            parameters,
            is_scan=True,
        )
        return [(row[0], _sums(row[1:])) for row in rows]

    async def response_ms_at(self, scope: Scope, since: int, ranks: Mapping[str, int]) -> dict[str, int]:
        """The response times at these ranks, by the ranks' names. Rank 1 is the shortest."""
        where, parameters = _where(scope, since)
        places = ", ".join(str(int(rank)) for rank in ranks.values())
        rows = await self._database.read(
            f"""
            SELECT place, response_ms FROM (
                SELECT response_ms, row_number() OVER (ORDER BY response_ms) AS place FROM usage_log WHERE {where}
            ) AS ranked WHERE place IN ({places})
            """,
            parameters,
            is_scan=True,
        )
        found = {int(row[0]): int(row[1]) for row in rows}
        return {name: found[rank] for name, rank in ranks.items() if rank in found}

    async def prune(self, before: int, most: int = 500) -> int:
        """Delete a batch of rows older than ``before``; how many it was."""
        (rows,) = await self._database.write(Statement(_PRUNE, {"before": before, "most": most}))
        return len(rows)


_storable_name = lru_cache(maxsize=4096)(storable)


def _storable(row: LogRow) -> LogRow:
    owner, model = _storable_name(row.owner), _storable_name(row.model) if row.model is not None else None
    return row if owner == row.owner and model == row.model else row._replace(owner=owner, model=model)


def outcome_of(job: Job) -> LoggedOutcome:
    """What a log row says of a job that has ended."""
    return LoggedOutcome(
        job.status,
        job.prompt_tokens,
        job.completion_tokens,
        None if job.started_at is None else job.started_at - job.created_at,
    )


def _where(scope: Scope, since: int) -> tuple[str, dict[str, Any]]:
    if scope.key_id is not None and scope.owner is not None:
        return "key_id = :key_id AND owner = :owner AND at >= :since", {**scope._asdict(), "since": since}
    if scope.key_id is not None:
        return "key_id = :key_id AND at >= :since", {"key_id": scope.key_id, "since": since}
    if scope.owner is not None:
        return "key_id IS NULL AND owner = :owner AND at >= :since", {"owner": scope.owner, "since": since}
    return "at >= :since", {"since": since}


def _sums(row: Row) -> Sums:
    return Sums(*(int(value) for value in row))
