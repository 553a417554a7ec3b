"""What jobs hold of text is deleted with their rows or before them, and only of jobs that have ended."""

from __future__ import annotations

from typing import Any

import pytest

from service.job import Job, Outcome, Segment, Status, new_job_id
from service.queue.gauges import Gauge
from service.store.contents import Candidate, ContentStore
from service.store.database import Database
from service.store.idempotency import KeptReply, RequestKey, remember
from service.store.jobs import JobStore
from tests.support.store_jobs import NOW, claimed, finished, inserted, look, new_job, prompt_of, result_of, stored

HOUR_MS = 3_600_000
LATER = NOW + 1_000
TABLES = ("jobs", "bodies", "results", "idempotency", "reply_pieces")


@pytest.fixture
def contents(database: Database) -> ContentStore:
    return ContentStore(database)


def ids(found: list[Candidate]) -> list[str]:
    return [one.id for one in found]


async def counts(database: Database) -> list[int]:
    """How many rows the tables have that hold something of jobs."""
    return [(await database.read(f"SELECT count(*) FROM {table}", {}))[0][0] for table in TABLES]


async def ended_with_everything(store: JobStore, key: str = "1", **fields: Any) -> Job:
    """A completed job with a request key, and a reply in a piece."""
    job_id = new_job_id(NOW)
    asked = RequestKey("somebody", key, "fingerprint")
    job = await inserted(store, new_job(**fields), job_id, is_started=True, also=remember(asked, job_id, NOW, None))
    await store.idempotency.keep_piece(job_id, 0, b"a piece")
    reply = KeptReply(200, (), b"", pieces=1, size=7)
    ended = await store.finish(job, Outcome(Status.COMPLETED, (Segment("text", "Hello"),)), NOW, reply)
    assert ended is not None
    return ended


async def test_a_purge_leaves_nothing_of_jobs_that_have_ended_and_all_of_the_others(
    database: Database, store: JobStore, contents: ContentStore
) -> None:
    ended, other = await ended_with_everything(store), await ended_with_everything(store, "2")
    running, waiting = await claimed(store), await stored(store)
    before = await counts(database)
    gone = await contents.purge([ended.id, running.id, waiting.id, "no such job"], LATER)
    assert gone == [ended]
    assert await counts(database) == [number - 1 for number in before]
    assert await look(store, other) == other
    assert (await look(store, running)).status == "processing"
    assert (await store.queries.gauges())[0] == [
        Gauge(running.line, "queued", 1, waiting.size), Gauge(running.line, "processing", 1, running.size),
        Gauge(running.line, "completed", 1, 0),
    ]  # fmt: skip


async def test_nothing_can_be_written_about_a_job_that_is_purged(
    database: Database, store: JobStore, contents: ContentStore
) -> None:
    job_id = new_job_id(NOW)
    asked = RequestKey("somebody", "1", "fingerprint")
    job = await inserted(store, new_job(), job_id, is_started=True, also=remember(asked, job_id, NOW, None))
    cancelled = await store.cancel(job.id, NOW)
    assert cancelled is not None
    await contents.purge([job.id], LATER)
    segments = (Segment("text", "late"),)
    await store.idempotency.keep_piece(job.id, 0, b"late")
    assert await store.finish(job, Outcome(Status.COMPLETED, segments), LATER, KeptReply(200, (), b"late")) is None
    await store.keep_output(cancelled, segments)
    assert await store.put_back(job, LATER) is None
    assert await store.cancel(job.id, LATER, segments, job.attempt) is None
    assert await counts(database) == [0] * len(TABLES)


async def test_of_a_job_without_contents_only_the_row_is_left_and_its_words_are_gone(
    database: Database, store: JobStore, contents: ContentStore
) -> None:
    ended = await ended_with_everything(store, prompt="a long question")
    failed = await store.finish(
        await claimed(store), Outcome(Status.FAILED, error_code="refused", error_message="it quotes"), NOW
    )
    running = await claimed(store)
    assert failed is not None
    emptied, freed = await contents.empty([ended.id, failed.id, running.id], LATER)
    assert sorted(emptied) == sorted(
        job._replace(preview="", error_message=None, contents_deleted_at=LATER) for job in (ended, failed)
    )
    assert freed > len("a long question")
    assert await counts(database) == [3, 1, 0, 0, 0]
    assert [await look(store, job) for job in emptied] == emptied
    assert (await result_of(store, ended.seq), await prompt_of(store, ended.seq)) == (None, "")
    assert await contents.empty([ended.id], LATER + 1) == ([], 0)
    # What another process comes with later is not stored either.
    await store.keep_output(emptied[0], (Segment("text", "late"),))
    assert await result_of(store, ended.seq) is None


async def test_contents_are_due_as_long_after_the_end_as_the_job_says(store: JobStore, contents: ContentStore) -> None:
    soon, late = await finished(store, retention_ms=1_000), await finished(store, retention_ms=5_000)
    await finished(store)
    await stored(store, retention_ms=1)
    assert await contents.due(NOW + 999) == []
    assert ids(await contents.due(NOW + 1_000)) == [soon.id]
    assert ids(await contents.due(NOW + 10_000)) == [soon.id, late.id]
    await contents.empty([soon.id], NOW)
    assert ids(await contents.due(NOW + 10_000)) == [late.id]


async def test_what_was_sent_whole_goes_soon_after_the_first_time(store: JobStore, contents: ContentStore) -> None:
    ended = await finished(store, retention_ms=86_400_000)
    running = await claimed(store, retention_ms=86_400_000)
    kept = await finished(store)
    for now in (NOW + 5_000, NOW + 9_000):
        for job in (ended, running, kept):
            await contents.note_sent(job.id, now, 60_000)
    assert (await look(store, ended)).retention_ms == 65_000
    # All of it may be with its caller before the end is stored.
    assert (await look(store, running)).retention_ms == 60_000
    assert (await look(store, kept)).retention_ms is None


async def test_jobs_that_were_cancelled_while_they_waited_go_before_the_oldest(
    store: JobStore, contents: ContentStore
) -> None:
    first, second = await finished(store), await finished(store, NOW + 1)
    begun = await claimed(store)
    never = await stored(store, now=NOW + 2)
    for job in (begun, never):
        await store.cancel(job.id, NOW + 3)
    await stored(store)
    assert await contents.never_begun(NOW + 3) == []
    assert ids(await contents.never_begun(NOW + 4)) == [never.id]
    await contents.empty([never.id, first.id], LATER)
    assert await contents.never_begun(NOW + 4) == []
    assert ids(await contents.oldest(0)) == [second.id, begun.id]
    assert await contents.oldest(NOW + 2) == [(begun.id, NOW + 3, begun.size)]
