"""Jobs in the database."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, NamedTuple

from service.job import Claimed, Job, Line, NewJob, Outcome, Result, Segment, Status, model_key, preview_of
from service.store.database import Database, Row, Statement
from service.store.job_statements import (
    ANY_READY,
    BY_SEQS,
    CANCEL,
    CLAIM,
    COLUMNS,
    EXACT_RANK,
    EXACT_TOTAL,
    EXPIRE,
    FINISH,
    GAUGES,
    HELD,
    INSERT,
    INSERT_BODY,
    INSERT_RESULT,
    LATEST_TIME,
    NEWEST_FIRST,
    NEXT_DUE,
    OLDEST_OF_LINE,
    OLDEST_READY,
    PROMOTE,
    PRUNE,
    PUT_BACK,
    RELEASE,
    RELEASE_ABANDONED,
    RESCUE,
    RESCUE_ABANDONED,
    SELECT_STANDING,
    SOME_AT_ONCE,
    WIDTH,
)
from service.store.texts import segments_text, storable


class Filter(NamedTuple):
    """Which jobs a list shows; None for all."""

    status: str | None = None
    model_key: str | None = None
    owner: str | None = None
    text: str | None = None
    key_id: str | None = None
    """Everything that was asked with one key, by whichever of the people behind it."""


class Gauge(NamedTuple):
    """How many jobs there are of one line in one status, and the bytes of their requests."""

    line: Line
    status: str
    jobs: int
    size: int


class Standing(NamedTuple):
    """A job and how many ready jobs of its line are ahead of it, counted up to EXACT_RANK."""

    job: Job
    rank: int


class Rescued(NamedTuple):
    """A job that was taken back, and its status before that."""

    job: Job
    before: str


class JobStore:
    """Jobs in the database."""

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._worker = worker
        self._own = {"worker": worker}
        self.keeps_order = database.keeps_order
        self.is_exclusive = not database.is_shared
        """Whether every change of a row passes through this process."""
        self._claim, self._promote, self._expire, self._prune = (
            sql.replace("{claim_lock}", database.claim_lock) for sql in (CLAIM, PROMOTE, EXPIRE, PRUNE)
        )

    def begun(self, new: NewJob, job_id: str, now: int) -> Job:
        """The row of a job that is begun at once, as it will be when it is stored; only its seq is not known yet."""
        return self._row(new, job_id, now, is_started=True)

    async def insert(self, new: NewJob, job_id: str, now: int, *, is_started: bool = False) -> Job:
        """Store a job; with ``is_started`` already as the first attempt of this process. Raises CannotStoreError."""
        job = self._row(new, job_id, now, is_started=is_started)
        body = {"id": job_id, "prompt": storable(new.prompt), "request": new.request}
        inserted, _ = await self._database.write(Statement(INSERT, job._asdict()), Statement(INSERT_BODY, body))
        return job._replace(seq=inserted[0][0])

    def _row(self, new: NewJob, job_id: str, now: int, *, is_started: bool) -> Job:
        key = model_key(new.model)
        status, attempt, worker = (Status.PROCESSING, 1, self._worker) if is_started else (Status.QUEUED, 0, None)
        return Job(
            0, job_id, new.door, new.endpoint, new.model, key, new.runner or key, new.owner, new.key_id,
            int(new.priority), int(new.is_streamed), str(status), attempt, 0, 0, new.not_before, new.deadline,
            new.on_disconnect, worker, self._worker if new.on_disconnect else None, storable(preview_of(new.prompt)),
            len(new.request), None, None, None, None, None, None, None, now, now, now if is_started else None, None,
            None,
        )  # fmt: skip

    async def claim(self, line: Line, seats: int, now: int) -> list[Claimed]:
        """Make up to ``seats`` of the oldest ready jobs of a line this process's own, oldest first."""
        (rows,) = await self._database.write(
            Statement(
                self._claim,
                {
                    "runner": line.runner,
                    "owner": line.owner,
                    "priority": line.priority,
                    "seats": seats,
                    "worker": self._worker,
                    "now": now,
                },
            )
        )
        claimed = [Claimed(_job(row), row[WIDTH]) for row in rows]
        claimed.sort()
        return claimed

    async def finish(self, job: Job, outcome: Outcome, now: int) -> Job | None:
        """Store how the attempt ended; None when the job is no longer this attempt's."""
        segments = segments_text(outcome.segments)
        error_message = storable(outcome.error_message) if outcome.error_message else outcome.error_message
        counts = outcome.counts
        row = {
            "seq": job.seq,
            "attempt": job.attempt,
            "status": str(outcome.status),
            "error_code": outcome.error_code,
            "error_message": error_message,
            "prompt_tokens": counts.prompt_tokens,
            "completion_tokens": counts.completion_tokens,
            "load_ms": counts.load_ms,
            "prompt_ms": counts.prompt_ms,
            "generation_ms": counts.generation_ms,
            "first_token_at": outcome.first_token_at,
            "now": now,
        }
        result = {
            "seq": job.seq,
            "attempt": job.attempt,
            "status": str(outcome.status),
            "now": now,
            "segments": segments,
        }
        updated, _ = await self._database.write(Statement(FINISH, row), Statement(INSERT_RESULT, result))
        if not updated:
            return None
        return job._replace(
            status=str(outcome.status),
            error_code=outcome.error_code,
            error_message=error_message,
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            load_ms=counts.load_ms,
            prompt_ms=counts.prompt_ms,
            generation_ms=counts.generation_ms,
            first_token_at=outcome.first_token_at,
            finished_at=now,
            updated_at=now,
        )

    async def put_back(
        self,
        job: Job,
        now: int,
        *,
        failures: int = 0,
        crashes: int = 0,
        not_before: int | None = None,
        error_code: str | None = None,
        error_message: str | None = None,
    ) -> Job | None:
        """Queue a running job again, ready at ``not_before``; None when it is no longer this attempt's."""
        (rows,) = await self._database.write(
            Statement(
                PUT_BACK,
                {
                    "seq": job.seq,
                    "attempt": job.attempt,
                    "failures": failures,
                    "crashes": crashes,
                    "not_before": not_before,
                    "error_code": error_code,
                    "error_message": storable(error_message) if error_message else error_message,
                    "now": now,
                },
            )
        )
        return _job(rows[0]) if rows else None

    async def cancel(
        self,
        job_id: str,
        now: int,
        segments: tuple[Segment, ...] = (),
        attempt: int = 0,
        *,
        code: str = "cancelled",
        message: str = "cancelled by its owner",
    ) -> Job | None:
        """End a job that is not final yet; None when it is. ``segments`` is what ``attempt`` has written so far."""
        row = {"id": job_id, "now": now, "error_code": code, "error_message": message}
        statements = [Statement(CANCEL, row)]
        if segments:
            text = segments_text(segments)
            statements.append(
                Statement(
                    INSERT_RESULT.replace("seq = :seq", "id = :id"),
                    {"id": job_id, "attempt": attempt, "status": "cancelled", "now": now, "segments": text},
                )
            )
        rows, *_ = await self._database.write(*statements)
        return _job(rows[0]) if rows else None

    async def keep_output(self, job: Job, segments: tuple[Segment, ...]) -> None:
        """Store what the last attempt of a job that another process has cancelled had written."""
        row = {
            "seq": job.seq,
            "attempt": job.attempt,
            "status": job.status,
            "now": job.finished_at,
            "segments": segments_text(segments),
        }
        await self._database.write(Statement(INSERT_RESULT, row))

    async def promote(self, now: int, most: int = 1_000) -> list[Job]:
        """Make delayed jobs ready whose time has come."""
        (rows,) = await self._database.write(Statement(self._promote, {"now": now, "most": most}))
        return [_job(row) for row in rows]

    async def expire(self, now: int, most: int = 1_000) -> list[Job]:
        """Fail queued jobs whose deadline has passed."""
        row = {"now": now, "most": most, "message": "still queued at its deadline"}
        (rows,) = await self._database.write(Statement(self._expire, row))
        return [_job(row) for row in rows]

    def may_claim(self, job: Job) -> bool:
        """Whether this process may claim it when it is ready: not if its caller waits at another."""
        return job.caller_at is None or job.caller_at == self._worker

    async def rescue(self, worker: str, now: int) -> list[Rescued]:
        """Take back the jobs of a process that is gone; no failure is counted."""
        row = {"worker": worker, "now": now}
        before = {
            RESCUE: Status.PROCESSING,
            RESCUE_ABANDONED: Status.PROCESSING,
            RELEASE: Status.QUEUED,
            RELEASE_ABANDONED: Status.QUEUED,
        }
        answers = await self._database.write(*(Statement(sql, row) for sql in before))
        return [
            Rescued(_job(row), status) for status, rows in zip(before.values(), answers, strict=True) for row in rows
        ]

    async def standing(self, job_id: str) -> Standing | None:
        """A job with its rank in its line."""
        rows = await self._database.read(SELECT_STANDING + "id = :id", {"id": storable(job_id)})
        return Standing(_job(rows[0]), rows[0][WIDTH]) if rows else None

    async def standing_by_seq(self, seq: int) -> Standing | None:
        """The same by the integer id."""
        rows = await self._database.read(SELECT_STANDING + "seq = :seq", {"seq": seq})
        return Standing(_job(rows[0]), rows[0][WIDTH]) if rows else None

    async def by_seqs(self, seqs: Collection[int]) -> dict[int, Job]:
        """Jobs by their numbers; those that there are."""
        wanted = list(seqs)
        found: dict[int, Job] = {}
        for start in range(0, len(wanted), SOME_AT_ONCE):
            some = wanted[start : start + SOME_AT_ONCE]
            row = {f"seq{number}": some[min(number, len(some) - 1)] for number in range(SOME_AT_ONCE)}
            found |= {job.seq: job for job in map(_job, await self._database.read(BY_SEQS, row))}
        return found

    async def result(self, seq: int) -> Result | None:
        """The output of a finished job."""
        rows = await self._database.read("SELECT attempt, segments FROM results WHERE seq = :seq", {"seq": seq})
        return Result(rows[0][0], tuple(Segment(*pair) for pair in json.loads(rows[0][1]))) if rows else None

    async def prompt(self, seq: int) -> str:
        """The whole prompt of a job, "" when there is no such job."""
        rows = await self._database.read("SELECT prompt FROM bodies WHERE seq = :seq", {"seq": seq})
        return str(rows[0][0]) if rows else ""

    async def prompts(self, first: int, last: int) -> dict[int, str]:
        """The whole prompts of the jobs from ``first`` to ``last``."""
        rows = await self._database.read(
            "SELECT seq, prompt FROM bodies WHERE seq BETWEEN :first AND :last", {"first": first, "last": last}
        )
        return {row[0]: row[1] for row in rows}

    async def page(self, which: Filter, limit: int, offset: int) -> list[Job]:
        """A page of the list, newest first."""
        where, parameters = _where(which)
        order = "seq DESC" if which._replace(text=None) == Filter() else NEWEST_FIRST
        rows = await self._database.read(
            f"SELECT {COLUMNS} FROM jobs WHERE {where} ORDER BY {order} LIMIT :limit OFFSET :offset",
            {**parameters, "limit": limit, "offset": offset},
            is_scan=which.text is not None or which.key_id is not None or offset > EXACT_RANK,
        )
        return [_job(row) for row in rows]

    async def count(self, which: Filter) -> int:
        """How many jobs a filter finds, up to EXACT_TOTAL."""
        where, parameters = _where(which)
        rows = await self._database.read(
            f"SELECT count(*) FROM (SELECT 1 FROM jobs WHERE {where} LIMIT {EXACT_TOTAL}) AS found",
            parameters,
            is_scan=True,
        )
        return int(rows[0][0])

    async def gauges(self) -> tuple[list[Gauge], dict[Line, int]]:
        """Every line's jobs by status, and how many of its queued ones this process may not claim now: they are
        delayed, or their callers wait elsewhere.
        """
        rows = await self._database.read(GAUGES, {}, is_scan=True)
        held = await self._database.read(HELD, self._own, is_scan=True)
        gauges = [Gauge(Line(*row[:3]), row[3], row[4], int(row[5])) for row in rows]
        return gauges, {Line(*row[:3]): row[3] for row in held}

    async def next_due(self) -> tuple[int | None, int | None]:
        """When the next delayed job becomes ready and the next queued one expires."""
        rows = await self._database.read(NEXT_DUE, {})
        return rows[0][0], rows[0][1]

    async def oldest_ready(self, runner: str) -> tuple[int, int] | None:
        """The seq of a runner's oldest ready job and since when it is ready."""
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
        """The latest time that is stored, for a clock that never runs behind it."""
        rows = await self._database.read(LATEST_TIME, {})
        return max((int(value) for value in rows[0] if value is not None), default=0)

    async def prune(self, before: int, most: int = 500) -> list[Gauge]:
        """Forget finished jobs older than ``before``; one gauge of one job for each."""
        (rows,) = await self._database.write(Statement(self._prune, {"before": before, "most": most}))
        return [Gauge(Line(*row[:3]), row[3], 1, row[4]) for row in rows]


_STATUSES = frozenset(Status)


def _job(row: Row) -> Job:
    return Job._make(row[:WIDTH])


def _where(which: Filter) -> tuple[str, dict[str, Any]]:
    clauses = ["1 = 1"]
    parameters: dict[str, Any] = {}
    if which.status is not None:
        # As a literal, since each status has an index of its own.
        clauses.append(f"status = '{Status(which.status)}'" if which.status in _STATUSES else "1 = 0")
    for column in ("model_key", "owner", "key_id"):
        value = getattr(which, column)
        if value is not None:
            clauses.append(f"{column} = :{column}")
            parameters[column] = storable(value)
    if which.text is not None:
        clauses.append(
            "EXISTS (SELECT 1 FROM bodies WHERE bodies.seq = jobs.seq AND lower(prompt) LIKE lower(:text) ESCAPE '!')"
        )
        escaped = storable(which.text).replace("!", "!!").replace("%", "!%").replace("_", "!_")
        parameters["text"] = f"%{escaped}%"
    return " AND ".join(clauses), parameters
