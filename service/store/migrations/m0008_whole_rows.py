"""A new job as the row that it becomes, and why the model stopped.

Status, attempt, preview and times of a new job are computed where its row is made, and nowhere else: the trigger only
puts them where they belong, as it did before migration 7.
"""

from service.store.migrations.m0004_new_jobs import STATEMENTS as NEW_JOBS

_ENDED = (
    "status", "error_code", "error_message", "prompt_tokens", "completion_tokens", "load_ms", "prompt_ms",
    "generation_ms", "done_reason", "first_token_at", "finished_at",
)  # fmt: skip
_OWN = ", ".join(f"jobs.{column}" for column in _ENDED)
_SET = ", ".join(f"{column} = NEW.{column}" for column in _ENDED)

STATEMENTS = (
    "DROP VIEW new_jobs",
    *NEW_JOBS,
    "ALTER TABLE jobs ADD COLUMN done_reason TEXT",
    "DROP VIEW outcomes",
    f"""
    CREATE VIEW outcomes AS
    SELECT jobs.seq, jobs.attempt, {_OWN}, segments FROM jobs JOIN results ON results.seq = jobs.seq
    """,
    f"""
    {{instead_of_outcome}}
        UPDATE jobs SET {_SET}, updated_at = NEW.finished_at
        WHERE seq = NEW.seq AND status = 'processing' AND attempt = NEW.attempt;
        {{unless_changed}}
        INSERT INTO results (seq, attempt, segments) VALUES (NEW.seq, NEW.attempt, NEW.segments)
        ON CONFLICT (seq) DO NOTHING;
    {{instead_of_outcome_end}}
    """,
)
