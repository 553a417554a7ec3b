"""What a caller calls its request, beside the job that came of it."""

from service.store.migrations.m0004_new_jobs import new_jobs

STATEMENTS = (
    "ALTER TABLE jobs ADD COLUMN request_id TEXT",
    "DROP VIEW new_jobs",
    *new_jobs("request_id"),
)
