"""What is deleted is nowhere in the files of SQLite."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from service.config import DatabaseConfig
from service.job import Outcome, Segment, Status
from service.store.contents import AT_ONCE, ContentStore
from service.store.database import JobPlace, Statement
from service.store.jobs import JobStore
from service.store.opening import open_database
from service.store.sqlite.page_gaps import DatabaseFile, merged
from tests.support.databases import Place
from tests.support.files import texts_in
from tests.support.running import PATIENCE_SECONDS
from tests.support.store_jobs import LINE, NOW, look, stored


def mark(number: int) -> str:
    return f"PLANTED{number:05d}X"


async def test_texts_that_were_moved_about_before_they_were_purged_are_in_no_file(sqlite_place: Place) -> None:
    chance = random.Random(11)
    folder = sqlite_place.config.path.parent
    async with sqlite_place.opened() as database:
        await database.prepare()
        store, contents = JobStore(database, "one"), ContentStore(database)
        ended = []
        for number in range(400):
            words = mark(number) + " word" * chance.choice([2, 20, 100, 250, 1_500])
            await stored(store, words, request=words)
            if number % 20 == 19:
                running = [one.job for one in await store.claim(LINE, 20, NOW)]
                chance.shuffle(running)
                for job in running:
                    output = job.preview[:13] + "X" * chance.choice([3, 60, 300, 1_000])
                    done = await store.finish(job, Outcome(Status.COMPLETED, (Segment("text", output),)), NOW)
                    assert done is not None
                    ended.append(done)
        gone = chance.sample(ended, 200)
        purged = []
        for start in range(0, len(gone), AT_ONCE):
            purged += await contents.purge([job.id for job in gone[start : start + AT_ONCE]], NOW)
        assert await contents.erase([JobPlace(job.seq, job.id) for job in purged])
        assert texts_in(folder, [job.preview[:13] for job in gone]) == {}
        # Nor do they come back with what is written to the same pages later.
        await database.write(Statement("UPDATE jobs SET request_id = 'a longer row than it was before'", {}))
        assert await contents.erase(())
        assert texts_in(folder, [job.preview[:13] for job in gone]) == {}
        left = [job.preview[:13] for job in ended if job not in gone]
        assert set(texts_in(folder, left)) == set(left)
        assert (folder / "queue.db-wal").stat().st_size < 1 << 20


def test_the_gaps_of_all_pages_of_a_table_are_found_and_its_rows_stay_as_they_are(tmp_path: Path) -> None:
    chance, path = random.Random(1), tmp_path / "some.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("CREATE TABLE texts (number INTEGER PRIMARY KEY, words TEXT)")
    numbers = list(range(1, 3_001))
    chance.shuffle(numbers)
    connection.execute("BEGIN")
    for number in numbers:
        words = mark(number) * chance.choice([1, 4, 20, 600])
        connection.execute("INSERT INTO texts VALUES (?, ?)", (number, words))
    connection.execute("COMMIT")
    [(root,)] = connection.execute("SELECT rootpage FROM sqlite_master").fetchall()
    rows = connection.execute("SELECT * FROM texts").fetchall()
    file = DatabaseFile(path)
    try:
        some, everything = list(file.leaves(root, [(100, 120), (2_000, 2_000)])), list(file.leaves(root, [(1, 3_000)]))
        assert set(some) < set(everything)
        assert file.clear_gaps(some) > 0
        assert file.clear_gaps(some) == 0
        assert file.clear_gaps(everything) > 0
        assert file.clear_gaps(everything) == 0
    finally:
        file.close()
    connection.close()
    again = sqlite3.connect(path)
    assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert again.execute("SELECT * FROM texts").fetchall() == rows
    again.close()


async def test_the_log_is_long_again_when_nothing_more_is_erased(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.sqlite.erasing._PAUSE_SECONDS", 0.0)
    log = sqlite_place.config.path.with_name("queue.db-wal")
    async with sqlite_place.opened() as database:
        await database.prepare()
        assert await database.erase(())
        job = await stored(JobStore(database, "one"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while log.stat().st_size < 32 << 20:
                assert await look(JobStore(database, "one"), job) == job
        # What was written meanwhile is in it still.
        assert await look(JobStore(database, "two"), job) == job


async def test_after_the_end_nothing_is_waited_for(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database:
        waiting = asyncio.create_task(database.erase([JobPlace(1, "one")]))
        await database.read("SELECT 1", {})
    assert await waiting in (True, False)
    assert await database.erase(()) is False


def test_ranges_that_touch_are_one() -> None:
    assert merged([(5, 9), (1, 3), (9, 12), (2, 2), (20, 20)]) == [(1, 3), (5, 12), (20, 20)]


async def test_a_start_erases_what_a_killed_process_had_deleted(sqlite_place: Place, tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    async with sqlite_place.opened() as database:
        await database.prepare()
        store, contents = JobStore(database, "one"), ContentStore(database)
        job = await stored(store, mark(1))
        await store.cancel(job.id, NOW)
        await contents.purge([job.id], NOW)
        for path in sqlite_place.config.path.parent.glob("queue.db*"):
            (left / path.name).write_bytes(path.read_bytes())
    assert texts_in(left, [mark(1)]) == {mark(1): ["queue.db-wal"]}
    database = await open_database(DatabaseConfig(path=left / "queue.db"))
    try:
        await database.prepare()
        assert texts_in(left, [mark(1)]) == {}
        assert (left / "queue.db-wal").stat().st_size >= 32 << 20
    finally:
        await database.close()
