"""A new job and its body as one row of a view, so that one statement stores both.

On SQLite one statement needs no BEGIN and COMMIT either. Each statement that is saved counts, since it gives Python's
lock away and has to get it back from a busy event loop.
"""

_COLUMNS = (
    "id", "door", "endpoint", "model", "model_key", "runner", "owner", "key_id", "priority", "is_streamed", "status",
    "attempt", "failures", "crashes", "not_before", "deadline", "on_disconnect", "worker", "caller_at", "preview",
    "size", "created_at", "updated_at", "started_at",
)  # fmt: skip


def new_jobs(*later: str) -> tuple[str, ...]:
    """The view and its trigger, with the columns that later steps have added."""
    columns = (*_COLUMNS, *later)
    own, given = ", ".join(columns), ", ".join(f"NEW.{column}" for column in columns)
    return (
        f"""
    CREATE VIEW new_jobs AS
    SELECT jobs.seq, {own}, prompt, request FROM jobs JOIN bodies ON bodies.seq = jobs.seq
    """,
        # SQLite is told the number, PostgreSQL gives it; see service.store.database.Database.next_number.
        f"""
    {{instead_of_insert}}
        INSERT INTO jobs ({{seq_given}}{own}) VALUES ({{new_seq_given}}{given}) {{seq_taken}};
        INSERT INTO bodies (seq, prompt, request) VALUES (NEW.seq, NEW.prompt, NEW.request);
    {{instead_of_insert_end}}
    """,
    )


STATEMENTS = new_jobs()
