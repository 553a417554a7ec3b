"""The statements on jobs, each written once for both databases.

Every UPDATE names the status and attempt that it expects. Of two changes the first to commit wins; the other changes
nothing and gets no row.
"""

from __future__ import annotations

from typing import Any

from service.job import Job
from service.store.database import Insert

COLUMNS = ", ".join(Job._fields)
WIDTH = len(Job._fields)

EXACT_RANK = 1_000
"""A rank is counted up to here. A higher one is estimated from the gauges."""
EXACT_TOTAL = 10_000
"""The jobs that a filter finds are counted up to here."""

_NEW = tuple(field for field in Job._fields if field not in Job._field_defaults)
INSERT = Insert("new_jobs", (*_NEW, "prompt", "request"), gives="seq")


def new_values(job: Job, prompt: str, request: str) -> tuple[Any, ...]:
    """The values of a new job for INSERT."""
    return (*job[: len(_NEW)], prompt, request)


READY = "status = 'queued' AND not_before IS NULL"
# Only the process on whose connection the caller waits can give the reply.
MAY_CLAIM = "(caller_at IS NULL OR caller_at = :worker)"
# Each of these orders is that of one index only. In the order of ``seq`` itself, PostgreSQL would sometimes walk the
# primary key and pass over what does not match: its planner does not know that the oldest rows are the finished ones.
BY_ARRIVAL_IN_LINE = "seq + 0"
BY_ARRIVAL_AT_RUNNER = "seq + 1"
NEWEST_FIRST = "seq + 2 DESC"

_CLAIM = f"""
    WITH picked AS MATERIALIZED (
        SELECT seq FROM jobs
        WHERE runner = :runner AND owner = :owner AND priority = :priority AND {READY} AND {MAY_CLAIM} {{but}}
        ORDER BY {BY_ARRIVAL_IN_LINE} LIMIT :seats {{claim_lock}}
    )
    UPDATE jobs SET status = 'processing', attempt = attempt + 1, worker = :worker, started_at = :now, updated_at =
    :now, first_token_at = NULL WHERE seq IN (SELECT seq FROM picked) AND status = 'queued' RETURNING {COLUMNS},
    (SELECT request FROM bodies WHERE bodies.seq = jobs.seq)
"""
CLAIM = _CLAIM.replace("{but}", "")
MOST_PASSED_OVER = 64
CLAIM_PAST = _CLAIM.replace("{but}", f"AND id NOT IN ({', '.join(f':past{n}' for n in range(MOST_PASSED_OVER))})")

_ENDED = (
    "seq", "attempt", "status", "error_code", "error_message", "prompt_tokens", "completion_tokens", "load_ms",
    "prompt_ms", "generation_ms", "done_reason", "first_token_at", "finished_at", "segments",
)  # fmt: skip
# It gives nothing back when the job is no longer this attempt's.
FINISH = Insert("outcomes", _ENDED, gives="seq")
# The status and the time are written so that no index serves them: the job is to be found by its seq (or id). Another
# process may be deleting it, or its contents, at this moment.
INSERT_RESULT = """
    INSERT INTO results (seq, attempt, segments)
    SELECT seq, attempt, :segments FROM jobs
    WHERE seq = :seq AND attempt = :attempt AND status || '' = :status AND finished_at + 0 = :now
      AND contents_deleted_at IS NULL {share_lock}
    ON CONFLICT (seq) DO NOTHING
"""

PUT_BACK = f"""
    UPDATE jobs SET status = 'queued', failures = failures + :failures, crashes = crashes + :crashes,
                    not_before = :not_before, error_code = :error_code, error_message = :error_message, worker = NULL,
                    updated_at = :now
    WHERE seq = :seq AND status = 'processing' AND attempt = :attempt
    RETURNING {COLUMNS}
"""

# The worker stays named, which tells a job that was cancelled while it ran from one that was cancelled in the queue.
CANCEL = f"""
    UPDATE jobs SET status = 'cancelled', finished_at = :now, updated_at = :now, error_code = :error_code, error_message
    = :error_message WHERE id = :id AND status IN ('queued', 'processing') RETURNING {COLUMNS}
"""

PROMOTE = f"""
    WITH due AS MATERIALIZED (
        SELECT seq FROM jobs WHERE status = 'queued' AND not_before <= :now ORDER BY not_before LIMIT :most
        {{claim_lock}}
    )
    UPDATE jobs SET not_before = NULL, updated_at = :now
    WHERE seq IN (SELECT seq FROM due) AND status = 'queued'
    RETURNING {COLUMNS}
"""

EXPIRE = f"""
    WITH late AS MATERIALIZED (
        SELECT seq FROM jobs WHERE status = 'queued' AND deadline <= :now ORDER BY deadline LIMIT :most {{claim_lock}}
    )
    UPDATE jobs SET status = 'failed', error_code = 'expired', error_message = :message, finished_at = :now,
                    updated_at = :now
    WHERE seq IN (SELECT seq FROM late) AND status = 'queued'
    RETURNING {COLUMNS}
"""

# A job is cancelled when its caller waited on a connection of the dead process, unless the caller asked for ``finish``.
RESCUE = f"""
    UPDATE jobs SET status = 'queued', worker = NULL, caller_at = NULL, updated_at = :now
    WHERE status = 'processing' AND worker = :worker AND (on_disconnect IS NULL OR on_disconnect = 'finish')
    RETURNING {COLUMNS}
"""
RESCUE_ABANDONED = f"""
    UPDATE jobs SET status = 'cancelled', error_code = 'disconnected', finished_at = :now, updated_at = :now,
                    error_message = 'the caller was gone when the service came back'
    WHERE status = 'processing' AND worker = :worker AND on_disconnect = 'cancel'
    RETURNING {COLUMNS}
"""

# The same for the jobs that are still queued.
RELEASE = f"""
    UPDATE jobs SET caller_at = NULL, updated_at = :now
    WHERE status = 'queued' AND caller_at = :worker AND on_disconnect = 'finish'
    RETURNING {COLUMNS}
"""
RELEASE_ABANDONED = f"""
    UPDATE jobs SET status = 'cancelled', error_code = 'disconnected', finished_at = :now, updated_at = :now,
                    error_message = 'the caller was gone when the service came back'
    WHERE status = 'queued' AND caller_at = :worker AND on_disconnect = 'cancel'
    RETURNING {COLUMNS}
"""

RANK = f"""
    (SELECT count(*) FROM (
        SELECT 1 FROM jobs AS ahead
        WHERE ahead.runner = jobs.runner AND ahead.owner = jobs.owner AND ahead.priority = jobs.priority
          AND ahead.status = 'queued' AND ahead.not_before IS NULL
          AND ahead.{BY_ARRIVAL_IN_LINE} < jobs.{BY_ARRIVAL_IN_LINE}
        ORDER BY ahead.{BY_ARRIVAL_IN_LINE} LIMIT {EXACT_RANK}
    ) AS counted)
"""
SELECT_STANDING = f"SELECT {COLUMNS}, CASE WHEN status = 'queued' THEN {RANK} ELSE 0 END FROM jobs WHERE "

# Each part is answered from an index alone, but for delayed and running jobs, of which there are few. The size of jobs
# that have ended is of no interest.
GAUGES = f"""
    SELECT runner, owner, priority, 'queued', count(*), sum(size) FROM jobs WHERE {READY}
    GROUP BY runner, owner, priority
    UNION ALL
    SELECT runner, owner, priority, 'queued', count(*), sum(size) FROM jobs
    WHERE status = 'queued' AND not_before IS NOT NULL GROUP BY runner, owner, priority
    UNION ALL
    SELECT runner, owner, priority, 'processing', count(*), sum(size) FROM jobs WHERE status = 'processing'
    GROUP BY runner, owner, priority
    UNION ALL
    SELECT runner, owner, priority, status, count(*), 0 FROM jobs WHERE finished_at IS NOT NULL
    GROUP BY runner, owner, priority, status
"""
HELD = """
    WITH held AS MATERIALIZED (
        SELECT runner, owner, priority FROM jobs WHERE status = 'queued' AND not_before > 0
        UNION ALL
        SELECT runner, owner, priority FROM jobs
        WHERE status = 'queued' AND caller_at > '' AND caller_at <> :worker AND coalesce(not_before, 0) = 0
    )
    SELECT runner, owner, priority, count(*) FROM held GROUP BY runner, owner, priority
"""
NEXT_DUE = """
    SELECT (SELECT min(not_before) FROM jobs WHERE status = 'queued' AND not_before IS NOT NULL),
           (SELECT min(deadline) FROM jobs WHERE status = 'queued' AND deadline IS NOT NULL)
"""
KEYS_OF_UNFINISHED = """
    SELECT key_id FROM jobs WHERE status = 'queued' AND key_id IS NOT NULL
    UNION
    SELECT key_id FROM jobs WHERE status = 'processing' AND key_id IS NOT NULL
"""
ANY_READY = f"""
    SELECT seq FROM jobs WHERE {READY} AND {MAY_CLAIM}
    ORDER BY runner, owner, priority, {BY_ARRIVAL_IN_LINE} LIMIT 1
"""
OLDEST_READY = f"""
    SELECT seq, updated_at FROM jobs WHERE runner = :runner AND {READY} AND {MAY_CLAIM}
    ORDER BY {BY_ARRIVAL_AT_RUNNER} LIMIT 1
"""
OLDEST_OF_LINE = f"""
    SELECT seq FROM jobs WHERE runner = :runner AND owner = :owner AND priority = :priority AND {READY}
    ORDER BY {BY_ARRIVAL_IN_LINE} LIMIT 1
"""
SOME_AT_ONCE = 50
BY_SEQS = f"SELECT {COLUMNS} FROM jobs WHERE seq IN ({', '.join(f':seq{number}' for number in range(SOME_AT_ONCE))})"
LATEST_TIME = """
    SELECT (SELECT updated_at FROM jobs ORDER BY seq DESC LIMIT 1), (SELECT max(finished_at) FROM jobs WHERE finished_at
    IS NOT NULL), (SELECT max(heartbeat_at) FROM workers)
"""
PRUNE = """
    WITH old AS MATERIALIZED (
        SELECT seq FROM jobs WHERE finished_at < :before ORDER BY finished_at LIMIT :most {claim_lock}
    )
    DELETE FROM jobs WHERE seq IN (SELECT seq FROM old)
    RETURNING runner, owner, priority, status, size
"""
