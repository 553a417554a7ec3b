"""What jobs hold of text may go before their rows: how long it is kept, and when it went."""

from service.store.migrations.m0004_new_jobs import new_jobs

STATEMENTS = (
    # Days after the end of a key's jobs; NULL for as long as their rows are there. 0: until a result was taken.
    "ALTER TABLE keys ADD COLUMN retention_days {integer}",
    "ALTER TABLE jobs ADD COLUMN retention_ms {integer}",
    "ALTER TABLE jobs ADD COLUMN contents_deleted_at {integer}",
    "DROP VIEW new_jobs",
    *new_jobs("request_id", "retention_ms"),
    # Only jobs of keys that say so are in the first, and of the others only those that were cancelled while they waited
    # are in the second: all other jobs cost nothing more.
    """
    CREATE INDEX jobs_perishing ON jobs ((finished_at + retention_ms))
    WHERE retention_ms IS NOT NULL AND finished_at IS NOT NULL AND contents_deleted_at IS NULL
    """,
    """
    CREATE INDEX jobs_never_begun ON jobs ((finished_at + 1))
    WHERE status = 'cancelled' AND started_at IS NULL AND contents_deleted_at IS NULL
    """,
    # The requests of the last hour whose jobs were purged: they count against their key's limit all the same.
    "CREATE TABLE purged_requests (key_id TEXT NOT NULL, created_at {integer} NOT NULL){strict}",
    "CREATE INDEX purged_requests_of_key ON purged_requests (key_id, created_at)",
)
