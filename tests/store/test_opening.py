"""Opening a database: made when it is not there, brought up to date, refused in one line when it cannot serve."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from service.config import DatabaseConfig
from service.errors import DatabaseUnusableError
from service.job import Counts, Outcome, Status
from service.store.database import Database, Statement
from service.store.jobs import JobStore
from service.store.migrations import MIGRATIONS, NEWEST, Migration
from service.store.opening import open_database
from tests.support.databases import Place
from tests.support.store_jobs import NOW, claimed, look, prompt_of, stored

APPLIED = "SELECT number FROM schema_migrations ORDER BY number"
_TEXTS = (
    "id", "door", "endpoint", "model", "model_key", "runner", "owner", "key_id", "on_disconnect", "worker", "caller_at",
    "preview",
)  # fmt: skip
_NUMBERS = ("priority", "is_streamed", "attempt", "failures", "crashes", "size")
HOLD_THE_LOCK = """
import asyncio, pathlib, sys
from service.store.sqlite.database import SqliteDatabase
async def hold():
    database = await SqliteDatabase.open(pathlib.Path(sys.argv[1]))
    print("open", flush=True)
    await asyncio.Event().wait()
asyncio.run(hold())
"""


async def applied(database: Database) -> list[int]:
    return [row[0] for row in await database.read(APPLIED, {})]


async def test_each_migration_is_applied_once_and_recorded(place: Place) -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, NEWEST + 1))
    for _ in range(2):
        async with place.opened() as database:
            assert await applied(database) == list(range(1, NEWEST + 1))


async def test_jobs_are_there_when_the_database_is_opened_again(place: Place) -> None:
    async with place.opened() as database:
        job = await stored(JobStore(database, "one"))
    async with place.opened() as database:
        assert await look(JobStore(database, "two"), job) == job


async def test_a_number_is_never_given_again(place: Place) -> None:
    async with place.opened() as database:
        store = JobStore(database, "one")
        numbers = [(await stored(store)).seq for _ in range(3)]
        await database.write(Statement("DELETE FROM jobs WHERE seq = :seq", {"seq": numbers[-1]}))
    async with place.opened() as database:
        numbers.append((await stored(JobStore(database, "two"))).seq)
    assert numbers == sorted(set(numbers))


async def test_a_schema_that_is_newer_than_the_program_is_refused(place: Place) -> None:
    async with place.opened() as database:
        await database.write(Statement("INSERT INTO schema_migrations VALUES (:number, 0)", {"number": NEWEST + 1}))
    with pytest.raises(DatabaseUnusableError, match=rf"newer Corral \(schema {NEWEST + 1}, this one knows {NEWEST}\)"):
        await place.open()


async def test_a_migration_that_fails_leaves_nothing_behind(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.opened() as database:
        job = await stored(JobStore(database, "one"))
    failing = Migration(
        NEWEST + 1, ("CREATE TABLE half_done (id TEXT)", "DELETE FROM jobs", "CREATE TABLE half_done (id TEXT)")
    )
    for module in ("service.store.sqlite.database", "service.store.postgres.database"):
        monkeypatch.setattr(f"{module}.MIGRATIONS", (*MIGRATIONS, failing))
    with pytest.raises(DatabaseUnusableError, match="half_done"):
        await place.open()
    monkeypatch.undo()
    async with place.opened() as database:
        assert await applied(database) == list(range(1, NEWEST + 1))
        assert await look(JobStore(database, "one"), job) == job
        await database.write(Statement("CREATE TABLE half_done (id TEXT)", {}))


async def test_processes_that_start_together_apply_each_migration_once(postgres_place: Place) -> None:
    databases = await asyncio.gather(*(postgres_place.open() for _ in range(5)))
    assert await applied(databases[0]) == list(range(1, NEWEST + 1))
    for database in databases:
        await database.close()


async def test_a_file_that_another_process_holds_is_refused_with_its_number(sqlite_place: Place) -> None:
    path = sqlite_place.config.path
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD_THE_LOCK, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"open\n"
    with pytest.raises(DatabaseUnusableError, match=rf"another process holds it \(pid {child.pid}\)"):
        await sqlite_place.open()
    # A kill leaves nothing stale.
    child.kill()
    await child.communicate()
    async with sqlite_place.opened() as database:
        with pytest.raises(DatabaseUnusableError, match="another process holds it"):
            await sqlite_place.open()
        assert await applied(database)


async def test_the_file_is_created_with_its_folders(tmp_path: Path) -> None:
    database = await open_database(DatabaseConfig(path=tmp_path / "a" / "b" / "queue.db"))
    await database.close()
    assert (tmp_path / "a" / "b" / "queue.db").exists()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnusableError, match=r"queue\.db: .*choose a folder that can be written to"):
        await open_database(DatabaseConfig(path=tmp_path / "file" / "queue.db"))


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_text("a letter to a friend, longer than the header of a database " * 20)
    with pytest.raises(DatabaseUnusableError, match="not a database"):
        await open_database(DatabaseConfig(path=path))
    assert path.read_text().startswith("a letter")


async def test_a_disk_that_cannot_hold_a_write_ahead_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Like a network disk, memory keeps another kind of journal when it is asked for one.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatabaseUnusableError, match=r"cannot hold a write-ahead log .*use a local disk"):
        await open_database(DatabaseConfig(path=Path(":memory:")))


async def test_a_sqlite_that_is_too_old_is_refused(sqlite_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.36.0")
    with pytest.raises(DatabaseUnusableError, match=r"SQLite 3\.36\.0 is too old: Corral needs 3\.37"):
        await sqlite_place.open()


async def test_a_server_that_is_not_there_is_named_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusableError, match=r"PostgreSQL 127\.0\.0\.1:1/corral: .*DATABASE_URL") as refused:
        await open_database(DatabaseConfig(url="postgresql://me:secret@127.0.0.1:1/corral"))
    assert "secret" not in str(refused.value)


async def test_a_database_that_the_server_does_not_have_is_named(postgres_place: Place) -> None:
    url = postgres_place.config.url.replace("/postgres?", "/nowhere?")
    with pytest.raises(DatabaseUnusableError, match='database "nowhere" does not exist'):
        await open_database(DatabaseConfig(url=url))


async def test_without_its_driver_postgresql_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("asyncpg", "service.store.postgres."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(DatabaseUnusableError, match=r"pip install 'ollama-corral\[postgres\]'"):
        await open_database(DatabaseConfig(url="postgresql://localhost/corral"))


async def test_a_log_that_was_given_its_length_is_recovered_after_a_crash(sqlite_place: Place, tmp_path: Path) -> None:
    async with sqlite_place.opened() as database:
        await database.prepare()
        job = await stored(JobStore(database, "one"))
        folder = sqlite_place.config.path.parent
        log = folder / "queue.db-wal"
        length = log.stat().st_size
        assert length >= 32 << 20
        # As a crash would leave it: nothing of it is in the database itself yet.
        left = tmp_path / "left"
        left.mkdir()
        for name in ("queue.db", "queue.db-wal"):
            shutil.copyfile(folder / name, left / name)
    database = await open_database(DatabaseConfig(path=left / "queue.db"))
    try:
        store = JobStore(database, "two")
        assert await look(store, job) == job
        assert (await stored(store)).seq > job.seq
        assert (left / "queue.db-wal").stat().st_size >= length
    finally:
        await database.close()


@pytest.mark.parametrize("schema", [3, 7])
async def test_jobs_of_an_older_schema_keep_bodies_and_numbers_and_new_ones_go_through_their_lives(
    place: Place, monkeypatch: pytest.MonkeyPatch, schema: int
) -> None:
    module = "service.store.sqlite.database" if place.is_sqlite else "service.store.postgres.database"
    with monkeypatch.context() as before:
        before.setattr(f"{module}.MIGRATIONS", MIGRATIONS[:schema])
        before.setattr(f"{module}.NEWEST", schema)
        async with place.opened() as database:
            row = dict.fromkeys(_NUMBERS, 0) | dict.fromkeys(_TEXTS, "text")
            row |= {"status": "completed", "created_at": NOW, "updated_at": NOW}
            columns = ", ".join(row)
            insert = f"INSERT INTO jobs ({columns}) VALUES ({', '.join(':' + name for name in row)}) RETURNING seq"
            numbers = []
            for job_id in ("one", "two"):
                [[(number,)]] = await database.write(Statement(insert, {**row, "id": job_id}))
                body = {"seq": number, "prompt": f"prompt {job_id}", "request": "{}"}
                await database.write(Statement("INSERT INTO bodies VALUES (:seq, :prompt, :request)", body))
                numbers.append(number)
            await database.write(Statement("DELETE FROM jobs WHERE seq = :seq", {"seq": numbers[1]}))
    async with place.opened() as database:
        store = JobStore(database, "one")
        assert await prompt_of(store, numbers[0]) == "prompt one"
        job = await claimed(store)
        assert job.seq > numbers[1]
        ended = await store.finish(job, Outcome(Status.COMPLETED, counts=Counts(done_reason="stop")), NOW)
        assert ended is not None
        assert await look(store, ended) == ended
        assert ended.done_reason == "stop"
