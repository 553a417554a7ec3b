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
from service.store.database import Statement
from service.store.jobs import JobStore
from service.store.opening import open_database
from service.store.sqlite.page_gaps import DatabaseFile
from tests.support.databases import Place
from tests.support.files import texts_in
from tests.support.running import PATIENCE_SECONDS
from tests.support.store_jobs import LINE, NOW, duplicated, finished, look, stored


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
        for start in range(0, len(gone), AT_ONCE):
            await contents.purge([job.id for job in gone[start : start + AT_ONCE]], NOW)
        assert await contents.erase()
        assert texts_in(folder, [job.preview[:13] for job in gone]) == {}
        # Nor do they come back with what is written to the same pages later.
        await database.write(Statement("UPDATE jobs SET request_id = 'a longer row than it was before'", {}))
        assert await contents.erase()
        assert texts_in(folder, [job.preview[:13] for job in gone]) == {}
        left = [job.preview[:13] for job in ended if job not in gone]
        assert set(texts_in(folder, left)) == set(left)
        assert (folder / "queue.db-wal").stat().st_size < 1 << 20


@pytest.mark.parametrize(("page_bytes", "vacuum"), [(512, "INCREMENTAL"), (4_096, "INCREMENTAL"), (4_096, "NONE")])
def test_what_is_left_behind_in_any_page_is_found_and_all_rows_stay_as_they_are(
    tmp_path: Path, page_bytes: int, vacuum: str
) -> None:
    chance, path = random.Random(1), tmp_path / "some.db"
    connection = sqlite3.connect(path, isolation_level=None)
    # As an earlier version wrote; a file that was made anew has no map of its pages, and no free ones.
    for pragma in (f"page_size = {page_bytes}", f"auto_vacuum = {vacuum}", "secure_delete = OFF"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE texts (number INTEGER PRIMARY KEY, name TEXT UNIQUE, words TEXT)")
    numbers = list(range(3_000))
    chance.shuffle(numbers)
    connection.execute("BEGIN")
    for number in numbers:
        words = mark(number) * chance.choice([1, 4, 20, 600])
        connection.execute("INSERT INTO texts VALUES (?, ?, ?)", (number, f"{chance.random()} {mark(number)}", words))
    gone = [number for number in numbers if number % 5 == 0 or 1_000 < number < 1_500]
    for number in gone:
        connection.execute("DELETE FROM texts WHERE number = ?", (number,))
    connection.execute("COMMIT")
    if vacuum == "NONE":
        connection.execute("VACUUM")
    rows = connection.execute("SELECT * FROM texts").fetchall()
    assert (texts_in(tmp_path, map(mark, gone)) == {}) == (vacuum == "NONE")
    file = DatabaseFile(path)
    try:
        while not file.is_clear:
            # One stretch of pages at a time.
            file.clear(lambda: True)
        file.begin_anew()
        assert file.clear(lambda: False) == 0
    finally:
        file.close()
    assert texts_in(tmp_path, map(mark, gone)) == {}
    connection.close()
    again = sqlite3.connect(path, isolation_level=None)
    assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert again.execute("SELECT * FROM texts").fetchall() == rows
    again.executemany("INSERT INTO texts VALUES (?, ?, ?)", [(number, str(number), mark(1) * 90) for number in gone])
    again.execute("PRAGMA incremental_vacuum")
    assert again.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    again.close()


async def test_the_log_is_long_again_when_nothing_more_is_erased(
    sqlite_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.sqlite.erasing._PAUSE_SECONDS", 0.0)
    log = sqlite_place.config.path.with_name("queue.db-wal")
    async with sqlite_place.opened() as database:
        await database.prepare()
        assert await database.erase()
        job = await stored(JobStore(database, "one"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while log.stat().st_size < 32 << 20:
                assert await look(JobStore(database, "one"), job) == job
        # What was written meanwhile is in it still.
        assert await look(JobStore(database, "two"), job) == job


async def test_after_the_end_nothing_is_waited_for(sqlite_place: Place) -> None:
    async with sqlite_place.opened() as database:
        waiting = database.erase()
        await database.read("SELECT 1", {})
    assert await waiting in (True, False)
    assert await database.erase() is False


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


async def test_a_start_erases_what_an_earlier_version_has_left_in_the_pages(sqlite_place: Place) -> None:
    path = sqlite_place.config.path
    async with sqlite_place.opened() as database:
        job = await stored(JobStore(database, "one"))
    texts = [mark(number) for number in range(40)]
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA secure_delete = OFF")
    for number, words in enumerate(texts):
        row = (job.seq + 1 + number, words, words * 20 * number)
        connection.execute("INSERT INTO bodies VALUES (?, ?, ?)", row)
    connection.commit()
    connection.execute("DELETE FROM bodies WHERE seq > ?", (job.seq,))
    connection.commit()
    connection.close()
    assert len(texts_in(path.parent, texts)) > 30
    async with sqlite_place.opened() as database:
        await database.prepare()
        assert texts_in(path.parent, texts) == {}
        assert await look(JobStore(database, "one"), job) == job


_RESULTS = """
    INSERT INTO results SELECT seq, 1, 'PLANTED' || (10000 + seq) || hex(zeroblob(350 + seq * seq % 7 * 16)) FROM jobs
    WHERE (seq % 150 = 0) = :is_early ORDER BY seq
"""


async def test_an_answer_that_came_long_before_those_to_earlier_questions_leaves_nothing_among_them(
    sqlite_place: Place,
) -> None:
    async with sqlite_place.opened() as database:
        await database.prepare()
        store, contents = JobStore(database, "one"), ContentStore(database)
        await duplicated(database, (await finished(store)).seq, 5_000)
        await database.write(Statement("DELETE FROM results", {}))
        for is_early in (1, 0):
            await database.write(Statement(_RESULTS, {"is_early": is_early}))
        early = await database.read("SELECT seq, id FROM jobs WHERE seq % 150 = 0", {})
        await contents.purge([job_id for _, job_id in early], NOW)
        assert await contents.erase()
        assert texts_in(sqlite_place.config.path.parent, [f"PLANTED{10_000 + seq}" for seq, _ in early]) == {}
