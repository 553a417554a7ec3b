"""Changes of jobs in the database."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from itertools import islice
from typing import Any, NamedTuple

from service.job import Claimed, Counts, Job, Line, NewJob, Outcome, Segment, Status, model_key, preview_of
from service.queue.gauges import Gauge
from service.store.database import Answers, Database, Settle, Statement, Written
from service.store.idempotency import IdempotencyStore, KeptReply, keep
from service.store.job_queries import JobQueries, job_of
from service.store.job_statements import (
    CANCEL,
    CLAIM,
    CLAIM_PAST,
    EXPIRE,
    FINISH,
    INSERT,
    INSERT_RESULT,
    MOST_PASSED_OVER,
    PROMOTE,
    PRUNE,
    PUT_BACK,
    RELEASE,
    RELEASE_ABANDONED,
    RESCUE,
    RESCUE_ABANDONED,
    WIDTH,
    new_values,
)
from service.store.texts import segments_text, storable

PRUNED_AT_ONCE = 500
_LONGEST_REASON = 200
_QUEUED, _PROCESSING = str(Status.QUEUED), str(Status.PROCESSING)


class Rescued(NamedTuple):
    """A job that was taken back from a dead process, and its status before."""

    job: Job
    before: str


def numbered(job: Job, answers: Answers) -> Job:
    """The row of a new job with its number, which the database may have given."""
    return job if job.seq else job._replace(seq=answers[0][0][0])


def _storable_counts(counts: Counts) -> Counts:
    """The counts, with the backend's own word as a database can keep it."""
    reason = counts.done_reason
    return counts if reason is None else counts._replace(done_reason=storable(reason[:_LONGEST_REASON]))


class JobStore:
    """Stores jobs and what becomes of them. To look at them there are its ``queries``."""

    def __init__(self, database: Database, own_name: str) -> None:
        self._database = database
        self._own_name = own_name
        self.queries = JobQueries(database, own_name)
        self.idempotency = IdempotencyStore(database)
        self.keeps_order = database.keeps_order
        self.is_exclusive = not database.is_shared
        """Whether every change of a row passes through this process."""
        self._claim, self._claim_past, self._promote, self._expire, self._prune = (
            sql.replace("{claim_lock}", database.claim_lock) for sql in (CLAIM, CLAIM_PAST, PROMOTE, EXPIRE, PRUNE)
        )
        self._insert_result = INSERT_RESULT.replace("{share_lock}", database.share_lock)

    def new_job(self, new: NewJob, job_id: str, now: int, *, is_started: bool = False) -> Job:
        """The row of a new job, waiting or already started as this process's first attempt; without a number (0) where
        the database gives them, see :func:`numbered`.
        """
        key = model_key(new.model)
        return Job(
            seq=self._database.next_number() or 0,
            id=job_id,
            door=new.door,
            endpoint=new.endpoint,
            model=new.model,
            model_key=key,
            runner=new.runner or key,
            owner=new.owner,
            key_id=new.key_id,
            priority=int(new.priority),
            is_streamed=int(new.is_streamed),
            status=_PROCESSING if is_started else _QUEUED,
            attempt=int(is_started),
            failures=0,
            crashes=0,
            not_before=new.not_before,
            deadline=new.deadline,
            on_disconnect=new.on_disconnect,
            worker=self._own_name if is_started else None,
            caller_at=self._own_name if new.on_disconnect else None,
            preview=storable(preview_of(new.prompt)),
            size=len(new.request),
            created_at=now,
            updated_at=now,
            started_at=now if is_started else None,
            request_id=new.request_id,
            retention_ms=new.retention_ms,
        )

    def insert(self, job: Job, new: NewJob, *, also: Sequence[Statement] = (), settle: Settle | None = None) -> Written:
        """Store a new job, and ``also`` this with it; the write is on its way. ``settle`` hears what it came to;
        awaiting it raises CannotStoreError, and what ``also`` brings about.
        """
        values = new_values(job, storable(new.prompt), new.request)
        return self._database.write(Statement(INSERT, values), *also, settle=settle)

    async def claim(self, line: Line, seats: int, now: int, passed_over: Collection[str] = ()) -> list[Claimed]:
        """Claim up to ``seats`` of the oldest ready jobs of a line for this process, but for those that are passed over
        (up to MOST_PASSED_OVER ids); the oldest comes first.
        """
        values: dict[str, Any] = {
            "runner": line.runner,
            "owner": line.owner,
            "priority": line.priority,
            "seats": seats,
            "worker": self._own_name,
            "now": now,
        }
        if passed_over:
            values |= {f"past{number}": "" for number in range(MOST_PASSED_OVER)}
            values |= {f"past{number}": one for number, one in enumerate(islice(passed_over, MOST_PASSED_OVER))}
        sql = self._claim_past if passed_over else self._claim
        (rows,) = await self._database.write(Statement(sql, values))
        claimed = [Claimed(job_of(row), row[WIDTH]) for row in rows]
        claimed.sort()
        return claimed

    async def finish(
        self, job: Job, outcome: Outcome, now: int, reply: KeptReply | None = None, *, is_urgent: bool = True
    ) -> Job | None:
        """Store how the attempt ended; None when the job is no longer this attempt's.

        ``reply`` is kept for a caller that repeats the request. A write whose caller has the reply already is not
        urgent.
        """
        ended = job._replace(
            status=str(outcome.status),
            error_code=outcome.error_code,
            error_message=storable(outcome.error_message) if outcome.error_message else outcome.error_message,
            **_storable_counts(outcome.counts)._asdict(),
            first_token_at=outcome.first_token_at,
            finished_at=now,
            updated_at=now,
        )
        row = {**ended._asdict(), "segments": segments_text(outcome.segments)}
        kept = () if reply is None else (keep(job.id, reply),)
        updated, *_ = await self._database.write(Statement(FINISH, row), *kept, is_urgent=is_urgent)
        return ended if updated else None

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
        return job_of(rows[0]) if rows else None

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
        """End a job unless it is final already; then this gives None. ``segments`` is what ``attempt`` has written."""
        row = {"id": job_id, "now": now, "error_code": code, "error_message": message}
        statements = [Statement(CANCEL, row)]
        if segments:
            text = segments_text(segments)
            statements.append(
                Statement(
                    self._insert_result.replace("seq = :seq", "id = :id"),
                    {"id": job_id, "attempt": attempt, "status": "cancelled", "now": now, "segments": text},
                )
            )
        rows, *_ = await self._database.write(*statements)
        return job_of(rows[0]) if rows else None

    async def write_nothing(self) -> None:
        """Take a turn among the writes: where they keep their order, those before it are stored when this returns."""
        await self._database.write(Statement("DELETE FROM jobs WHERE seq < 0", {}))

    async def keep_output(self, job: Job, segments: tuple[Segment, ...]) -> None:
        """Store what the last attempt of a job has written here, when another process has cancelled that job."""
        row = {
            "seq": job.seq,
            "attempt": job.attempt,
            "status": job.status,
            "now": job.finished_at,
            "segments": segments_text(segments),
        }
        await self._database.write(Statement(self._insert_result, row))

    async def promote(self, now: int, most: int = 1_000) -> list[Job]:
        """Make the delayed jobs ready whose time has come."""
        (rows,) = await self._database.write(Statement(self._promote, {"now": now, "most": most}))
        return [job_of(row) for row in rows]

    async def expire(self, now: int, most: int = 1_000) -> list[Job]:
        """Fail queued jobs whose deadline has passed."""
        row = {"now": now, "most": most, "message": "still queued at its deadline"}
        (rows,) = await self._database.write(Statement(self._expire, row))
        return [job_of(row) for row in rows]

    async def rescue(self, worker: str, now: int) -> list[Rescued]:
        """Take back the jobs of a process that is gone. No failure is counted for them."""
        row = {"worker": worker, "now": now}
        before = {
            RESCUE: Status.PROCESSING,
            RESCUE_ABANDONED: Status.PROCESSING,
            RELEASE: Status.QUEUED,
            RELEASE_ABANDONED: Status.QUEUED,
        }
        answers = await self._database.write(*(Statement(sql, row) for sql in before))
        return [
            Rescued(job_of(row), status) for status, rows in zip(before.values(), answers, strict=True) for row in rows
        ]

    def erase(self) -> Awaitable[bool]:
        """Have nothing left in the files of what was deleted before, as
        :meth:`service.store.database.Database.erase` says.
        """
        return self._database.erase()

    async def prune(self, before: int, most: int = PRUNED_AT_ONCE) -> list[Gauge]:
        """Delete finished jobs older than ``before``. Gives a gauge of one job for each."""
        (rows,) = await self._database.write(Statement(self._prune, {"before": before, "most": most}))
        return [Gauge(Line(*row[:3]), row[3], 1, row[4]) for row in rows]

    def tell(self, change: str) -> None:
        """Tell the other processes that share the database; where it is not shared, nobody is told."""
        self._database.notify(change)
