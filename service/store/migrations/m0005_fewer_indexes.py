"""Fewer indexes for a new job, since they take most of an insert's time.

The gauges of queued jobs are counted from the index that claims use, which now holds the sizes. Those of ended jobs
are counted from an index that a job enters only at its end. Lists are narrowed to an owner only for callers with a key.
"""

STATEMENTS = (
    "DROP INDEX jobs_gauges",
    "DROP INDEX jobs_ready",
    # The columns of its condition stand among its columns, here and below. Else SQLite reads the table for them.
    """
    CREATE INDEX jobs_ready ON jobs (runner, owner, priority, (seq + 0), size, status, not_before)
    WHERE status = 'queued' AND not_before IS NULL
    """,
    """
    CREATE INDEX jobs_ended ON jobs (runner, owner, priority, status, finished_at) WHERE finished_at IS NOT NULL
    """,
    "DROP INDEX jobs_by_owner",
    "CREATE INDEX jobs_by_owner ON jobs (owner, (-seq)) WHERE key_id IS NOT NULL",
)
