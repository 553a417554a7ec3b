"""Lists and searches, on every database."""

from __future__ import annotations

import pytest

from service.job import Status
from service.store.database import Database
from service.store.job_queries import Filter
from service.store.job_statements import EXACT_TOTAL
from service.store.jobs import JobStore
from tests.support.store_jobs import claimed, duplicated, finished, seqs, stored


async def test_a_list_is_newest_first_and_in_pages(store: JobStore) -> None:
    jobs = [await stored(store) for _ in range(5)]
    newest_first = seqs(jobs)[::-1]
    assert seqs(await store.queries.page(Filter(), 2, 0)) == newest_first[:2]
    assert seqs(await store.queries.page(Filter(), 2, 4)) == newest_first[4:]
    assert await store.queries.page(Filter(), 2, 6) == []
    assert await store.queries.page(Filter(), 9, 0) == jobs[::-1]


async def test_a_list_shows_one_status_model_or_owner_or_what_all_of_them_have_in_common(store: JobStore) -> None:
    queued = await stored(store, model="mistral", owner="b", key_id="b")
    running = await claimed(store, owner="b", key_id="b")
    done = await finished(store, owner="a", key_id="a")
    failed = await finished(store, owner="a", key_id="a", status=Status.FAILED)
    cancelled = await store.cancel((await stored(store, owner="a", key_id="a")).id, 1)
    assert cancelled is not None
    by_status = {"queued": queued, "processing": running, "completed": done, "failed": failed, "cancelled": cancelled}
    for status, job in by_status.items():
        assert await store.queries.page(Filter(status=status), 9, 0) == [job]
        assert await store.queries.count(Filter(status=status)) == 1
    assert seqs(await store.queries.page(Filter(model_key="mistral:latest"), 9, 0)) == [queued.seq]
    assert seqs(await store.queries.page(Filter(owner="a"), 9, 0)) == seqs([cancelled, failed, done])
    assert seqs(await store.queries.page(Filter(owner="b", model_key="llama3.2:latest"), 9, 0)) == [running.seq]
    assert await store.queries.page(Filter(owner="b", status="completed"), 9, 0) == []


async def test_a_status_that_does_not_exist_finds_nothing(store: JobStore) -> None:
    await stored(store)
    assert await store.queries.page(Filter(status="' OR 1=1 --"), 9, 0) == []
    assert await store.queries.count(Filter(status="pending")) == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("100%", ["100% sure"]),
        ("0_o", ["a 0_o face"]),
        ("wow!", ["Wow! really"]),
        ("!%", ["odd !% one"]),
        ("WOW", ["Wow! really"]),
        ("'", ["it's"]),
        ("日本", ["about 日本語"]),
        ("", None),
        ("nothing like it", []),
        ("\\", ["back \\ slash"]),
        ("\0", []),
        ("\ud83d", []),
    ],
)
async def test_a_search_takes_every_character_literally(store: JobStore, text: str, found: list[str] | None) -> None:
    prompts = ["100% sure", "100 sure", "a 0_o face", "a 0xo face", "Wow! really", "odd !% one", "it's"]
    prompts += ["about 日本語", "back \\ slash"]
    for prompt in prompts:
        await stored(store, prompt)
    hits = await store.queries.page(Filter(text=text), 99, 0)
    assert sorted(job.preview for job in hits) == sorted(prompts if found is None else found)
    assert await store.queries.count(Filter(text=text)) == len(hits)


async def test_a_search_looks_behind_the_preview_and_within_the_other_filters(store: JobStore) -> None:
    here = await stored(store, "x" * 5000 + " needle", owner="a", key_id="a")
    await stored(store, "needle", owner="b")
    assert seqs(await store.queries.page(Filter(text="needle", owner="a"), 9, 0)) == [here.seq]
    assert await store.queries.count(Filter(text="needle", owner="a")) == 1


async def test_a_count_stops_at_its_cap(store: JobStore, database: Database) -> None:
    first = await stored(store)
    await duplicated(database, first.seq, EXACT_TOTAL + 5)
    assert await store.queries.count(Filter()) == EXACT_TOTAL
    assert await store.queries.count(Filter(status="queued")) == EXACT_TOTAL
    assert await store.queries.count(Filter(status="failed")) == 0
