"""A new job in fewer parameters, and its indexes filled at their ends.

The trigger computed what follows from the rest of a new job (until migration 8). An index of a list in falling order
was filled at its beginning, where each full page is split into halves.
"""

_GIVEN = (
    "id", "door", "endpoint", "model", "model_key", "runner", "owner", "key_id", "priority", "is_streamed",
    "not_before", "deadline", "on_disconnect", "worker", "caller_at", "size", "created_at",
)  # fmt: skip
# Only a job that has begun has a worker.
_FOLLOWING = {
    "status": "CASE WHEN NEW.worker IS NULL THEN 'queued' ELSE 'processing' END",
    "attempt": "CASE WHEN NEW.worker IS NULL THEN 0 ELSE 1 END",
    "failures": "0",
    "crashes": "0",
    "preview": "substr(NEW.prompt, 1, 200)",
    "updated_at": "NEW.created_at",
    "started_at": "CASE WHEN NEW.worker IS NULL THEN NULL ELSE NEW.created_at END",
}
_COLUMNS = ", ".join([*_GIVEN, *_FOLLOWING])
_VALUES = ", ".join([*(f"NEW.{column}" for column in _GIVEN), *_FOLLOWING.values()])

# job_statements.py says why it is "seq + 2" and not "seq".
_LISTS = {
    "jobs_queued": "((seq + 2)) WHERE status = 'queued'",
    "jobs_processing": "((seq + 2)) WHERE status = 'processing'",
    "jobs_completed": "((seq + 2)) WHERE status = 'completed'",
    "jobs_failed": "((seq + 2)) WHERE status = 'failed'",
    "jobs_cancelled": "((seq + 2)) WHERE status = 'cancelled'",
    "jobs_by_model": "(model_key, (seq + 2))",
    "jobs_by_owner": "(owner, (seq + 2)) WHERE key_id IS NOT NULL",
}

STATEMENTS = (
    "DROP VIEW new_jobs",
    f"""
    CREATE VIEW new_jobs AS
    SELECT jobs.seq, {", ".join(_GIVEN)}, prompt, request FROM jobs JOIN bodies ON bodies.seq = jobs.seq
    """,
    f"""
    {{instead_of_insert}}
        INSERT INTO jobs ({{seq_given}}{_COLUMNS}) VALUES ({{new_seq_given}}{_VALUES}) {{seq_taken}};
        INSERT INTO bodies (seq, prompt, request) VALUES (NEW.seq, NEW.prompt, NEW.request);
    {{instead_of_insert_end}}
    """,
    *(f"DROP INDEX {name}" for name in _LISTS),
    *(f"CREATE INDEX {name} ON jobs {what}" for name, what in _LISTS.items()),
)
