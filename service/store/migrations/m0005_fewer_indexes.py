"""Fewer indexes for a new job to be put into, since they take most of an insert's time.

The gauges are counted from the index that claims use, which holds the sizes now, and, of jobs that have ended, from one
into which a job comes only at its end. Lists are narrowed to an owner only for who has a key.
"""

STATEMENTS = (
    "DROP INDEX jobs_gauges",
    "DROP INDEX jobs_ready",
    # With what it is about among its columns, as the one below: else SQLite looks into the table for that.
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
