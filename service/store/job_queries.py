"""Jobs as they stand in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from operator import attrgetter
from typing import NamedTuple

from service.job import Job, Line
from service.queue.gauges import Gauge
from service.store.database import Database, LongText, Row
from service.store.job_filters import Filter, edge_statement, ids_statement, page_statement, slice_statement
from service.store.job_statements import (
    ANY_READY,
    BY_SEQS,
    GAUGES,
    HELD,
    KEYS_OF_UNFINISHED,
    LATEST_TIME,
    NEXT_DUE,
    OLDEST_OF_LINE,
    OLDEST_READY,
    SELECT_STANDING,
    SOME_AT_ONCE,
    WIDTH,
)
from service.store.long_texts import SHORT_BYTES, StoredResult, StoredText
from service.store.texts import storable

_SEQ = attrgetter("seq")


class Standing(NamedTuple):
    """A job, and how many ready jobs of its line are ahead of it, counted up to EXACT_RANK."""

    job: Job
    rank: int


class Edge(NamedTuple):
    """The last job of a slice."""

    seq: int
    id: str
    created_at: int


class JobQueries:
    """What can be asked about jobs; nothing here changes one."""

    def __init__(self, database: Database, own_name: str) -> None:
        self._database = database
        self._own = {"worker": own_name}
        # One at a time, so that who reads long texts delays nobody by more than a piece.
        self._further_pieces = asyncio.Semaphore(1)

    async def standing(self, job_id: str) -> Standing | None:
        """A job with its rank in its line."""
        rows = await self._database.read(SELECT_STANDING + "id = :id", {"id": storable(job_id)})
        return Standing(job_of(rows[0]), rows[0][WIDTH]) if rows else None

    async def standing_by_seq(self, seq: int) -> Standing | None:
        """The job with this integer id, with its rank in its line."""
        rows = await self._database.read(SELECT_STANDING + "seq = :seq", {"seq": seq})
        return Standing(job_of(rows[0]), rows[0][WIDTH]) if rows else None

    async def keys_of_unfinished(self) -> list[str]:
        """The ids of the keys that have jobs which are queued or run."""
        return [row[0] for row in await self._database.read(KEYS_OF_UNFINISHED, {}, is_scan=True)]

    async def by_seqs(self, seqs: Collection[int]) -> dict[int, Job]:
        """Jobs by their numbers. A number without a job is left out."""
        wanted = list(seqs)
        found: dict[int, Job] = {}
        for start in range(0, len(wanted), SOME_AT_ONCE):
            some = wanted[start : start + SOME_AT_ONCE]
            row = {f"seq{number}": some[min(number, len(some) - 1)] for number in range(SOME_AT_ONCE)}
            found |= {job.seq: job for job in map(job_of, await self._database.read(BY_SEQS, row))}
        return found

    async def result(self, seq: int) -> StoredResult | None:
        """The output of a finished job."""
        rows, text = await asyncio.gather(
            self._database.read("SELECT attempt FROM results WHERE seq = :seq", {"seq": seq}),
            self._text(LongText("results", "segments", seq)),
        )
        return StoredResult(rows[0][0], text) if rows and text is not None else None

    async def prompt(self, seq: int) -> StoredText | None:
        """The whole prompt of a job."""
        return await self._text(LongText("bodies", "prompt", seq))

    async def request(self, seq: int) -> StoredText | None:
        """The body of a job's request."""
        return await self._text(LongText("bodies", "request", seq))

    async def _text(self, text: LongText) -> StoredText | None:
        first = await self._database.piece(text, 0, SHORT_BYTES)
        return StoredText(self._database, self._further_pieces, text, first) if first is not None else None

    async def page(
        self, which: Filter, limit: int, offset: int, total: int | None = None, before: int | None = None
    ) -> list[Job]:
        """A page of the list of a plain filter, newest first. It walks to its offset, which must not lie beyond the
        last job.
        """
        statement = page_statement(which, limit, offset, total, before)
        rows = await self._database.read(statement.sql, statement.parameters, is_scan=statement.is_scan)
        return sorted(map(job_of, rows), key=_SEQ, reverse=True)

    async def edge(self, which: Filter, by: str, before: int | None, size: int) -> Edge | None:
        """Where a slice of the index of a condition ends; None: it reaches to the oldest job."""
        statement = edge_statement(which, by, before, size)
        rows = await self._database.read(statement.sql, statement.parameters, is_scan=True)
        return Edge(*rows[0]) if rows else None

    async def slice(self, which: Filter, by: str, before: int | None, last: int) -> list[int]:
        """The numbers of the jobs of a slice that a filter finds, the newest first."""
        statement = slice_statement(which, by, before, last)
        sql = statement.sql.replace("{contains_text}", self._database.contains_text)
        rows = await self._database.read(sql, statement.parameters, is_scan=True)
        return sorted((row[0] for row in rows), reverse=True)

    async def number_of(self, job_id: str) -> int:
        """The number of a job; of one that is gone, one that lies between those that came before and after it."""
        # Ids begin with the moment at which they were made.
        rows = await self._database.read(
            "SELECT seq, id FROM jobs WHERE id <= :id ORDER BY id DESC LIMIT 1", {"id": storable(job_id)}
        )
        return 0 if not rows else rows[0][0] + (rows[0][1] != job_id)

    async def ids(self, which: Filter, first: int, last: int, most: int) -> list[tuple[int, str]]:
        """Numbers and ids of the jobs from ``first`` to ``last`` that a filter of one status finds, oldest first."""
        statement = ids_statement(which, first, last, most)
        sql = statement.sql.replace("{contains_text}", self._database.contains_text)
        rows = await self._database.read(sql, statement.parameters, is_scan=True)
        return [(row[0], row[1]) for row in rows]

    async def gauges(self) -> tuple[list[Gauge], dict[Line, int]]:
        """Every line's jobs by status, and how many of its queued jobs this process may not claim now. Those are
        delayed, or their callers wait at another process.
        """
        rows = await self._database.read(GAUGES, {}, is_scan=True)
        held = await self._database.read(HELD, self._own, is_scan=True)
        sums: dict[tuple[Line, str], tuple[int, int]] = {}
        for *line, status, jobs, size in rows:
            # A line's queued jobs come in two rows: the ready and the delayed ones.
            of = Line(*line), str(status)
            before = sums.get(of, (0, 0))
            sums[of] = before[0] + jobs, before[1] + int(size)
        gauges = [Gauge(*of, *sum_) for of, sum_ in sums.items()]
        return gauges, {Line(*row[:3]): row[3] for row in held}

    async def next_due(self) -> tuple[int | None, int | None]:
        """When the next delayed job becomes ready and the next queued one expires."""
        rows = await self._database.read(NEXT_DUE, {})
        return rows[0][0], rows[0][1]

    async def oldest_ready(self, runner: str) -> tuple[int, int] | None:
        """The seq of a runner's oldest ready job, and since when it is ready."""
        rows = await self._database.read(OLDEST_READY, {**self._own, "runner": runner})
        return (rows[0][0], rows[0][1]) if rows else None

    async def oldest_of_line(self, line: Line) -> int | None:
        """The seq of a line's oldest ready job."""
        rows = await self._database.read(
            OLDEST_OF_LINE, {"runner": line.runner, "owner": line.owner, "priority": line.priority}
        )
        return int(rows[0][0]) if rows else None

    async def has_ready(self) -> bool:
        """Whether any job may be claimed."""
        return bool(await self._database.read(ANY_READY, self._own))

    async def newest(self) -> int:
        """The largest seq there is, 0 for none."""
        rows = await self._database.read("SELECT coalesce(max(seq), 0) FROM jobs", {})
        return int(rows[0][0])

    async def latest_time(self) -> int:
        """The latest time that is stored; the clock must not run behind it."""
        rows = await self._database.read(LATEST_TIME, {})
        return max((int(value) for value in rows[0] if value is not None), default=0)


def job_of(row: Row) -> Job:
    """The job that a row begins with."""
    return Job._make(row[:WIDTH])
