"""Lists and searches, on every database."""

from __future__ import annotations

from itertools import product

import pytest

from service.job import Job, Outcome, Status, new_job_id
from service.jobs.searching import Search
from service.store.database import Database
from service.store.job_filters import OWNER, Filter
from service.store.job_statements import EXACT_TOTAL
from service.store.jobs import JobStore
from tests.support.store_jobs import NOW, claimed, duplicated, finished, inserted, new_job, searched, seqs, stored


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
        assert await store.queries.page(Filter((status,)), 9, 0) == [job]
    assert seqs(await store.queries.page(Filter(model_key="mistral:latest"), 9, 0)) == [queued.seq]
    assert seqs(await store.queries.page(Filter(owner="a"), 9, 0)) == seqs([cancelled, failed, done])
    assert await searched(store, Filter(owner="b", model_key="llama3.2:latest"), 9, 0) == ([running.seq], 1)
    assert await searched(store, Filter(owner="b", statuses=("completed",)), 9, 0) == ([], 0)


async def test_a_status_that_does_not_exist_finds_nothing(store: JobStore) -> None:
    await stored(store)
    assert await store.queries.page(Filter(("' OR 1=1 --",)), 9, 0) == []
    assert await searched(store, Filter(("pending",), text="sky"), 9, 0) == ([], 0)


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
    page = await Search(store.queries, Filter(text=text), "", 99, 0).page(None)
    assert sorted(job.preview for job in page.jobs) == sorted(prompts if found is None else found)
    assert page.total == len(page.jobs)


async def test_a_search_looks_behind_the_preview_and_within_the_other_filters(store: JobStore) -> None:
    here = await stored(store, "x" * 5000 + " needle", owner="a", key_id="a")
    await stored(store, "needle", owner="b")
    assert await searched(store, Filter(text="needle", owner="a"), 9, 0, OWNER) == ([here.seq], 1)


async def test_a_search_counts_up_to_a_bound_and_says_so(store: JobStore, database: Database) -> None:
    first = await stored(store)
    await duplicated(database, first.seq, EXACT_TOTAL + 40_000)
    page = await Search(store.queries, Filter(anonymous_owner=""), "", 5, 0).page(None)
    assert (len(page.jobs), page.is_capped, page.is_complete) == (5, True, False)
    assert EXACT_TOTAL <= page.total < EXACT_TOTAL + 20_000
    assert page.after == page.jobs[-1].id


MODELS = ("mistral", "llama3.2")
FILTERS = [
    Filter(statuses, model_key, owner, text, key_id)
    for statuses in [(), ("queued",), ("failed", "completed"), ("queued", "no such status")]
    for model_key in [None, "mistral:latest"]
    for owner in [None, "a"]
    for text in [None, "needle"]
    for key_id in [None, "a"]
]


async def test_pages_and_counts_are_the_same_whichever_index_is_walked_and_from_whichever_end(store: JobStore) -> None:
    jobs: list[Job] = []
    for number in range(24):
        prompt = ("a needle", "hay")[number // 4 % 2]
        new = new_job(prompt, owner="ab"[number % 2], key_id="ab"[number // 3 % 2], model=MODELS[number // 2 % 2])
        job = await inserted(store, new, new_job_id(NOW), is_started=number % 3 > 0)
        if number % 3:
            status = (Status.COMPLETED, Status.FAILED)[number % 3 - 1]
            job = await store.finish(job, Outcome(status, ()), NOW) or job
        jobs.insert(0, job)
    for which in FILTERS:
        right = [job.seq for job in jobs if fits(which, job)]
        pages = [(4, 0), (4, 3), (4, max(0, len(right) - 4)), (4, max(0, len(right) - 2)), (50, 0)]
        for total, (limit, offset) in product((None, len(right)), pages):
            here = right[offset : offset + limit]
            for by in ["", *which.alone()]:
                found = await searched(store, which, limit, offset, by, total)
                assert found == (here, len(right)), (which, by, limit, offset)
            if which.is_plain:
                assert seqs(await store.queries.page(which, limit, offset, total)) == here, (which, limit, offset)


async def test_a_walk_from_page_to_page_finds_each_job_once(store: JobStore) -> None:
    jobs = [
        await stored(store, ("a needle", "hay")[number % 3 % 2], owner="ab"[number % 2], key_id="k")
        for number in range(24)
    ]
    for which in (Filter(), Filter(owner="a"), Filter(text="needle"), Filter(("queued",), owner="a", text="needle")):
        right = [job.seq for job in reversed(jobs) if fits(which, job)]
        before: int | None = None
        found: list[int] = []
        while before is None or before > 0:
            if which.is_plain:
                page = seqs(await store.queries.page(which, 5, 0, before=before))
                before = page[-1] if page else 0
            else:
                searched_page = await Search(store.queries, which, "", 5, 0, before).page(None)
                page = [job.seq for job in searched_page.jobs]
                before = 0 if searched_page.after is None else await store.queries.number_of(searched_page.after)
            found += page
        assert found == right, which


async def test_a_job_that_is_gone_still_has_a_place_in_the_list(store: JobStore) -> None:
    first, gone, last = [await inserted(store, new_job(), new_job_id(NOW + number)) for number in range(3)]
    await store.finish(gone, Outcome(Status.FAILED, ()), NOW)
    nobodys = new_job_id(NOW + 1)
    number = await store.queries.number_of(nobodys)
    assert first.seq < number <= last.seq
    assert await store.queries.number_of(last.id) == last.seq
    assert await store.queries.number_of("0") == 0


def fits(which: Filter, job: Job) -> bool:
    return (
        (not which.statuses or job.status in which.statuses)
        and which.model_key in (None, job.model_key)
        and which.owner in (None, job.owner)
        and which.key_id in (None, job.key_id)
        and (which.text is None or which.text in job.preview)
    )
