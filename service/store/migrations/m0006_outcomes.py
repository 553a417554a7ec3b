"""How an attempt ended and what it has written, as one row of a view, so that one statement stores both.

A job that is no longer this attempt's stays as it is, and the statement gives no row.
"""

_CHANGED = (
    "status", "error_code", "error_message", "prompt_tokens", "completion_tokens", "load_ms", "prompt_ms",
    "generation_ms", "first_token_at", "finished_at",
)  # fmt: skip
_OWN = ", ".join(f"jobs.{column}" for column in _CHANGED)
_SET = ", ".join(f"{column} = NEW.{column}" for column in _CHANGED)

STATEMENTS = (
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
