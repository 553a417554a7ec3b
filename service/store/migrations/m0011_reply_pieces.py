"""Replies that are kept in pieces, since no large one is ever held, written or read as a whole."""

STATEMENTS = (
    # The pieces of a reply, each in base64; together they are its body, compressed. They never change once its job has
    # ended.
    """
    CREATE TABLE reply_pieces (
        job_id TEXT NOT NULL,
        number {integer} NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (job_id, number)
    ){strict}
    """,
    # How many pieces there are, 0 or NULL where the body stands in the row itself, and the bytes of the whole body.
    "ALTER TABLE idempotency ADD COLUMN reply_pieces {integer}",
    "ALTER TABLE idempotency ADD COLUMN reply_size {integer}",
)
