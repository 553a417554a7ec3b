"""A database that holds many waiting jobs, made in seconds: the service's own code stores one, SQL multiplies it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from service.job import Job, NewJob, new_job_id
from service.store.jobs import JobStore
from service.store.sqlite.database import SqliteDatabase

PROMPT = "Explain in three sentences why the sky is blue during the day and red in the evening."
OWNER = "127.0.0.1"
_CREATED_MS = 1_760_000_000_000


async def make_database(path: Path, jobs: int) -> None:
    """Fill a new database with so many equal jobs, one millisecond apart."""
    database = await SqliteDatabase.open(path)
    new = NewJob(
        door="prompts",
        endpoint="/api/generate",
        model="llama3.2",
        request=f'{{"model":"llama3.2","prompt":"{PROMPT}","stream":true}}',
        prompt=PROMPT,
        owner=OWNER,
    )
    try:
        store = JobStore(database, own_name="bench")
        await store.insert(store.new_job(new, new_job_id(_CREATED_MS), _CREATED_MS), new)
    finally:
        await database.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        _multiply(connection, jobs)


def job_id(number: int) -> str:
    """The id of the job with this number, 2 being the first of those that were multiplied."""
    return f"0199f3c4-0000-7000-8000-{number:012x}"


def _multiply(connection: sqlite3.Connection, jobs: int) -> None:
    for pragma in ("synchronous = OFF", "cache_size = -500000"):
        connection.execute(f"PRAGMA {pragma}")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    own = {
        "id": "printf('0199f3c4-0000-7000-8000-%012x', number)",
        "created_at": "created_at + number",
        "updated_at": "updated_at + number",
    }
    columns = [column for column in Job._fields if column != "seq"]
    connection.execute("BEGIN")
    # Indexes that are made at the end, from sorted rows, take a fraction of the time.
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    connection.execute(
        f"""
        WITH RECURSIVE numbers (number) AS (SELECT 2 UNION ALL SELECT number + 1 FROM numbers WHERE number < :jobs)
        INSERT INTO jobs ({", ".join(columns)})
        SELECT {", ".join(own.get(column, column) for column in columns)} FROM numbers, jobs WHERE seq = 1
        """,
        {"jobs": jobs},
    )
    connection.execute(
        "INSERT INTO bodies (seq, prompt, request) "
        "SELECT jobs.seq, prompt, request FROM jobs, bodies WHERE jobs.seq > 1 AND bodies.seq = 1"
    )
    for _, sql in indexes:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
