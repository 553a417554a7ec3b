"""Every statement finds its rows by the index that is meant for it, on every database and on a table with many rows."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import pytest

from service.job import Job, Line, Segment, Status
from service.store import idempotency, request_log
from service.store.contents import ContentStore
from service.store.database import Database, Statement, Update
from service.store.job_filters import MODEL, OWNER, STATUSES, Filter
from service.store.job_statements import CLAIM, GAUGES, HELD, OLDEST_READY, SELECT_STANDING
from service.store.jobs import JobStore
from service.store.migrations.m0008_whole_rows import STATEMENTS as OUTCOMES
from service.store.postgres.connections import Link
from service.store.postgres.database import PostgresDatabase
from service.store.postgres.statements import converted
from service.store.processes import ProcessStore
from service.store.sqlite.bulk import for_rows
from service.store.sqlite.database import SqliteDatabase
from tests.support.databases import Place
from tests.support.recording import Recording
from tests.support.store_jobs import NOW

ROWS = 12_000
LINE = Line("model-1:latest", "owner-1", 0)

_FILL = f"""
    WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {ROWS}),
    rows AS (
        SELECT number, CASE WHEN number % 10 < 5 THEN 'queued' WHEN number % 100 = 5 THEN 'processing'
                            WHEN number % 10 < 9 THEN 'completed' ELSE 'failed' END AS status
        FROM numbers
    )
    INSERT INTO jobs (id, door, endpoint, model, model_key, runner, owner, priority, is_streamed, status, attempt,
                      failures, crashes, not_before, deadline, worker, preview, size, created_at, updated_at,
                      finished_at)
    SELECT 'id-' || number, 'prompts', '/api/generate', 'model', 'model-' || (number % 4) || ':latest',
           'model-' || (number % 4) || ':latest', 'owner-' || (number % 15), number % 3 - 1, 1, status, 0,
           0, 0, CASE WHEN status = 'queued' AND number % 50 = 3 THEN {NOW} + number END,
           CASE WHEN status = 'queued' AND number % 50 = 4 THEN {NOW} + number END,
           CASE WHEN status = 'processing' THEN 'worker-' || number % 3 END, 'prompt', 100, {NOW} + number,
           {NOW} + number, CASE WHEN status IN ('completed', 'failed') THEN {NOW} + number END
    FROM rows
"""


class Asked(NamedTuple):
    """A method of the store and the indexes by which its statements may find rows.

    "seek jobs_pkey" is a look-up; a name alone may also be walked through in its order, up to a limit.
    """

    ask: Callable[[JobStore, Job], Awaitable[object]]
    indexes: tuple[str, ...]


ASKED = {
    "claim": Asked(
        lambda store, job: store.claim(LINE, 3, NOW), ("seek jobs_ready", "seek jobs_pkey", "seek bodies_pkey")
    ),
    "put back": Asked(lambda store, job: store.put_back(job, NOW), ("seek jobs_pkey",)),
    "cancel": Asked(lambda store, job: store.cancel(job.id, NOW, (Segment("text", "a"),), 1), ("seek jobs_id",)),
    "promote": Asked(lambda store, job: store.promote(NOW + 100), ("seek jobs_delayed", "seek jobs_pkey")),
    "expire": Asked(lambda store, job: store.expire(NOW + 100), ("seek jobs_deadline", "seek jobs_pkey")),
    "rescue": Asked(lambda store, job: store.rescue("worker-1", NOW), ("jobs_processing", "seek jobs_reserved")),
    "prune": Asked(lambda store, job: store.prune(NOW + 100), ("seek jobs_finished", "seek jobs_pkey")),
    "standing": Asked(lambda store, job: store.queries.standing(job.id), ("seek jobs_id", "seek jobs_ready")),
    "standing by number": Asked(
        lambda store, job: store.queries.standing_by_seq(job.seq), ("seek jobs_pkey", "seek jobs_ready")
    ),
    "result": Asked(lambda store, job: store.queries.result(job.seq), ("seek results_pkey",)),
    "prompt": Asked(lambda store, job: store.queries.prompt(job.seq), ("seek bodies_pkey",)),
    "oldest ready": Asked(lambda store, job: store.queries.oldest_ready(LINE.runner), ("seek jobs_ready_oldest",)),
    "oldest of a line": Asked(lambda store, job: store.queries.oldest_of_line(LINE), ("seek jobs_ready",)),
    "any ready": Asked(lambda store, job: store.queries.has_ready(), ("jobs_ready",)),
    "next due": Asked(lambda store, job: store.queries.next_due(), ("jobs_delayed", "jobs_deadline")),
    "latest time": Asked(lambda store, job: store.queries.latest_time(), ("jobs_pkey", "jobs_finished")),
    "newest": Asked(lambda store, job: store.queries.newest(), ("jobs_pkey",)),
    "by numbers": Asked(lambda store, job: store.queries.by_seqs([job.seq, 5]), ("seek jobs_pkey",)),
    "list": Asked(lambda store, job: store.queries.page(Filter(), 5, 5), ("jobs_pkey",)),
    "list of a model": Asked(
        lambda store, job: store.queries.page(Filter(model_key=LINE.runner), 5, 5), ("seek jobs_by_model",)
    ),
    "list of an owner": Asked(
        lambda store, job: store.queries.page(Filter(owner="owner-1"), 5, 5), ("seek jobs_by_owner",)
    ),
    "list of two statuses": Asked(
        lambda store, job: store.queries.page(Filter((Status.QUEUED, Status.PROCESSING)), 5, 5),
        ("jobs_queued", "jobs_processing", "seek jobs_pkey"),
    ),
    "list of a model before a job": Asked(
        lambda store, job: store.queries.page(Filter(model_key=LINE.runner), 5, 0, before=7_000),
        ("seek jobs_by_model",),
    ),
    "list of two statuses before a job": Asked(
        lambda store, job: store.queries.page(Filter((Status.QUEUED, Status.PROCESSING)), 5, 0, before=7_000),
        ("seek jobs_queued", "seek jobs_processing", "seek jobs_pkey"),
    ),
    "edge of a slice of a model": Asked(
        lambda store, job: store.queries.edge(Filter((Status.FAILED,), LINE.runner), MODEL, 7_000, 50),
        ("seek jobs_by_model", "seek jobs_pkey"),
    ),
    "slice of a model": Asked(
        lambda store, job: store.queries.slice(Filter((Status.FAILED,), LINE.runner), MODEL, 7_000, 6_000),
        ("seek jobs_by_model",),
    ),
    "edge of a slice of two statuses": Asked(
        lambda store, job: store.queries.edge(
            Filter((Status.QUEUED, Status.PROCESSING), owner="owner-1"), STATUSES, 7_000, 50
        ),
        ("seek jobs_queued", "seek jobs_processing", "seek jobs_pkey"),
    ),
    "slice of two statuses": Asked(
        lambda store, job: store.queries.slice(
            Filter((Status.QUEUED, Status.PROCESSING), owner="owner-1"), STATUSES, 7_000, 6_000
        ),
        ("seek jobs_queued", "seek jobs_processing"),
    ),
    "edge of a slice of a search": Asked(
        lambda store, job: store.queries.edge(Filter(text="x"), "", 7_000, 50), ("seek jobs_pkey",)
    ),
    "slice of a search": Asked(
        lambda store, job: store.queries.slice(Filter(text="x"), "", 7_000, 6_000),
        ("seek jobs_pkey", "seek bodies_pkey"),
    ),
    "slice of a search among an owner's": Asked(
        lambda store, job: store.queries.slice(Filter(owner="owner-1", text="x"), OWNER, 7_000, 6_000),
        ("seek jobs_by_owner", "seek bodies_pkey"),
    ),
    "sent": Asked(lambda store, job: _contents(store).note_sent(job.id, NOW, 1), ("seek jobs_id",)),
    "contents that are due": Asked(lambda store, job: _contents(store).due(NOW), ("seek jobs_perishing",)),
    "contents that nobody has used": Asked(
        lambda store, job: _contents(store).never_begun(NOW), ("seek jobs_never_begun",)
    ),
    "oldest contents": Asked(lambda store, job: _contents(store).oldest(NOW), ("seek jobs_finished",)),
    "place of a job in the list": Asked(lambda store, job: store.queries.number_of("id-700"), ("seek jobs_id",)),
} | {
    f"list of {status}": Asked(
        lambda store, job, status=status: store.queries.page(Filter((status,)), 5, 5),  # type: ignore[misc]
        (f"jobs_{status}",),
    )
    for status in Status
}


def _contents(store: JobStore) -> ContentStore:
    return ContentStore(store.queries._database)


@pytest.fixture(params=["never analyzed", "analyzed"])
async def filled(place: Place, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """Many jobs; the database has counted what is in its columns, or knows nothing."""
    async with place.opened() as database:
        await database.write(Statement(_FILL, {}))
        if request.param == "analyzed":
            await database.write(Statement("ANALYZE", {}))
        yield database


async def test_every_statement_finds_its_rows_by_the_index_that_is_meant_for_it(filled: Database) -> None:
    recording = Recording(filled)
    store = JobStore(recording, "own")
    [claimed] = await store.claim(LINE, 1, NOW)
    found: dict[str, list[str]] = {}
    for name, asked in ASKED.items():
        recording.statements.clear()
        await asked.ask(store, claimed.job)
        accesses = [access for one in tuple(recording.statements) for access in await explained(filled, one)]
        # A mere name says that walking through it is no harm.
        found[name] = sorted({access if access in asked.indexes else access.split()[1] for access in accesses})
    assert found == {name: sorted(asked.indexes) for name, asked in ASKED.items()}


@pytest.mark.parametrize("name", ["purge", "empty"])
async def test_jobs_that_lose_what_they_hold_are_found_by_their_ids(filled: Database, name: str) -> None:
    recording = Recording(filled)
    await getattr(ContentStore(recording), name)(["id-7", "id-9"], NOW)
    accesses = {access for one in recording.statements for access in await explained(filled, one)}
    assert {access for access in accesses if " jobs" in access} == {"seek jobs_id"}


async def test_a_job_that_ends_is_found_by_its_number(filled: Database) -> None:
    # No plan is told of what a trigger does.
    [update] = re.findall(r"UPDATE jobs SET .*?(?=;)", OUTCOMES[-1], re.DOTALL)
    sql = re.sub(r"NEW\.(\w+)", r":\1", update)
    row = {"status": "failed", "error_code": "e", "error_message": "m", "done_reason": "stop"}
    nothing = dict.fromkeys(re.findall(r":(\w+)", sql), 1)
    assert await explained(filled, Statement(sql, nothing | row)) == {"seek jobs_pkey"}


async def test_the_gauges_are_counted_from_indexes_and_of_all_but_a_few_jobs_from_those_alone(
    filled: Database, place: Place
) -> None:
    if place.is_sqlite:
        rows = await filled.read("EXPLAIN QUERY PLAN " + GAUGES, {})
        assert [row[3] for row in rows if "jobs" in row[3]] == [
            "SCAN jobs USING COVERING INDEX jobs_ready",
            "SEARCH jobs USING INDEX jobs_delayed (not_before>?)",
            "SCAN jobs USING INDEX jobs_processing",
            "SCAN jobs USING COVERING INDEX jobs_ended",
        ]
    else:
        # Which it takes it decides by what was vacuumed.
        accesses = await explained(filled, Statement(GAUGES, {}))
        assert "walk jobs" not in accesses
        assert len(accesses) == 4


async def test_the_jobs_that_may_not_be_claimed_are_found_by_their_indexes(filled: Database) -> None:
    accesses = await explained(filled, Statement(HELD, {"worker": "own"}))
    assert accesses == {"seek jobs_delayed", "seek jobs_reserved"}


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (CLAIM.replace("{claim_lock}", PostgresDatabase.claim_lock), "jobs_ready"),
        (OLDEST_READY, "jobs_ready_oldest"),
        (SELECT_STANDING + "id = :id", "jobs_ready"),
    ],
)
async def test_a_plan_for_whatever_parameters_is_the_same(postgres_place: Place, sql: str, index: str) -> None:
    # PostgreSQL makes such a plan when it has seen a statement five times, and keeps it.
    async with postgres_place.opened() as database:
        await database.write(Statement(_FILL, {}), Statement("ANALYZE", {}))
    link = Link(postgres_place.config.url)
    connection = await link.get()
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    statement = converted(sql)
    await connection.execute(f"PREPARE asked AS {statement.sql}")
    lines = await connection.fetch(f"EXPLAIN (COSTS OFF) EXECUTE asked({', '.join('NULL' for _ in statement.names)})")
    await link.close()
    assert f"seek {index}" in _accesses_of_postgres([line[0] for line in lines])


async def test_lost_processes_are_looked_for_among_running_and_reserved_jobs_only(filled: Database) -> None:
    recording = Recording(filled)
    await ProcessStore(recording, "own").lost(30)
    [statement] = recording.statements
    accesses = {access.split()[1] for access in await explained(filled, statement)}
    assert accesses - {"workers_pkey"} == {"jobs_processing", "jobs_reserved"}


@pytest.mark.parametrize("statement", [request_log._END, idempotency._KEEP])
@pytest.mark.parametrize("count", [1, 64])
async def test_rows_that_are_changed_together_are_each_found_by_their_keys(
    sqlite_place: Place, statement: Update, count: int
) -> None:
    changes = [tuple(f"{column} {number}" for column in statement.columns) for number in range(count)]
    text, _ = for_rows(statement, changes)
    async with sqlite_place.opened() as database:
        rows = await database.read("EXPLAIN QUERY PLAN " + text.replace("?", "NULL"), {})
    assert re.match(rf"SEARCH {statement.table} USING COVERING INDEX \w+_by_job \(job_id=\?\)", rows[-1][3])


async def explained(database: Database, statement: Statement) -> set[str]:
    """How a statement finds rows: "seek" or "walk", and the name of the index; "walk" and the table for want of one."""
    assert isinstance(statement.sql, str)
    assert isinstance(statement.parameters, Mapping)
    if isinstance(database, SqliteDatabase):
        rows = await database.read("EXPLAIN QUERY PLAN " + statement.sql, statement.parameters)
        return _accesses_of_sqlite([row[3] for row in rows])
    lines = await database.read("EXPLAIN (COSTS OFF) " + statement.sql, statement.parameters)
    return _accesses_of_postgres([line[0] for line in lines])


def _accesses_of_sqlite(details: Sequence[str]) -> set[str]:
    found = set()
    for detail in details:
        assert "FOR ORDER BY" not in detail
        if access := re.match(
            r"(SEARCH|SCAN) (jobs|ahead|bodies|results)(?: USING (?:COVERING )?INDEX (\w+))?", detail
        ):
            verb, table, index = access.groups()
            is_seek = verb == "SEARCH" and "(" in detail
            found.add(f"{'seek' if is_seek else 'walk'} {index or table + '_pkey'}")
    return found


def _accesses_of_postgres(lines: Sequence[str]) -> set[str]:
    found = set()
    for line, following in zip(lines, (*lines[1:], ""), strict=True):
        # A "Sort Key" may also be that of a merge, which reads no more than it gives; a sort has a line of its own.
        assert not re.search(r"\bSort\b(?! Key)", line)
        if access := re.search(r"Index (?:Only )?Scan (?:Backward )?using (\w+)", line):
            found.add(f"{'seek' if 'Index Cond' in following else 'walk'} {access[1]}")
        elif access := re.search(r"Scan on (jobs|bodies|results)", line):
            found.add(f"walk {access[1]}")
    return found
