"""Requests that may be repeated without becoming another job."""

STATEMENTS = (
    # One row for each request with an idempotency key, for a day. A reply is kept only where a caller waited for it:
    # its headers as JSON, its body compressed and in base64.
    """
    CREATE TABLE idempotency (
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        job_id TEXT NOT NULL,
        created_at {integer} NOT NULL,
        reply_status {integer},
        reply_headers TEXT,
        reply_body TEXT,
        PRIMARY KEY (owner, key)
    ){strict}
    """,
    "CREATE INDEX idempotency_by_job ON idempotency (job_id)",
    "CREATE INDEX idempotency_by_age ON idempotency (created_at)",
)
