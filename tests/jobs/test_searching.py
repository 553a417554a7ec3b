"""Searches: newest first, in slices, for a while, and no longer than somebody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.api.http.callers import CALLERS
from service.errors import LimitReachedError, UnavailableError
from service.jobs import searching
from service.jobs.searching import Search, SearchTurns
from service.store.database import Database
from service.store.job_filters import Filter
from service.store.job_queries import Edge, JobQueries
from service.store.jobs import JobStore
from tests.support.databases import Place
from tests.support.recording import Recording, rows_read
from tests.support.running import PATIENCE_SECONDS, RunningService, service_in_process
from tests.support.store_jobs import duplicated, stored

ENDLESS = """
    WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 1000000000000)
    SELECT count(*) FROM numbers
"""


async def test_a_scan_ends_when_nobody_waits_for_it_any_more(database: Database) -> None:
    """Else the one behind it would not be answered within this test."""
    forsaken = [asyncio.ensure_future(database.read(ENDLESS, {}, is_scan=True)) for _ in range(3)]
    for one in forsaken:
        for _ in range(10):
            await database.read("SELECT 1", {})
        one.cancel()
    async with asyncio.timeout(30):
        assert [tuple(row) for row in await database.read("SELECT 1", {}, is_scan=True)] == [(1,)]


async def test_a_search_among_very_many_ends_with_its_caller(place: Place) -> None:
    rows = 60_000
    async with place.opened() as database:
        recording = Recording(database)
        store = JobStore(recording, "one")
        first = await stored(store)
        await duplicated(database, first.seq, rows)
        recording.statements.clear()
        search = asyncio.ensure_future(Search(store.queries, Filter(text="nowhere"), "", 5, 0).page(None))
        await until(lambda: len(recording.statements) >= 6)
        search.cancel()
        await asyncio.wait([search])
        asked = tuple(recording.statements)
        assert search.cancelled()
        assert len(asked) <= 7
        assert await rows_read(place, recording, asked) < rows / 10
        # The whole of it reads them all.
        recording.statements.clear()
        page = await Search(store.queries, Filter(text="nowhere"), "", 5, 0).page(None)
        assert (page.jobs, page.is_complete, page.after) == ([], True, None)
        assert await rows_read(place, recording, tuple(recording.statements)) >= rows


class SlowQueries(JobQueries):
    """Slices of more than so many entries do not end."""

    def __init__(self, database: Database, most: int) -> None:
        super().__init__(database, "one")
        self.most = most
        self.sizes: list[int] = []

    async def edge(self, which: Filter, by: str, before: int | None, size: int) -> Edge | None:
        self.sizes.append(size)
        if size > self.most:
            await asyncio.get_running_loop().create_future()
        return await super().edge(which, by, before, size)


async def test_a_slice_that_takes_long_is_tried_again_as_a_smaller_one(place: Place) -> None:
    async with place.opened() as database:
        first = await stored(JobStore(database, "one"))
        await duplicated(database, first.seq, 120)
        queries = SlowQueries(database, 200)
        queries.sizes.clear()
        page = await Search(queries, Filter(anonymous_owner=""), "", 500, 0).page(None)
        assert (len(page.jobs), page.is_complete) == (121, True)
        queries.most = 20
        queries.sizes.clear()
        page = await Search(queries, Filter(anonymous_owner=""), "", 10, 0, before=100).page(None)
        assert queries.sizes == [64, 16]
        assert [job.seq for job in page.jobs] == list(range(99, 89, -1))
        assert page.after == page.jobs[-1].id


async def test_an_owners_second_search_waits_for_the_first_and_is_refused_after_a_while() -> None:
    turns = SearchTurns(patience_seconds=0)
    async with turns.turn("a"), turns.turn("b"):
        with pytest.raises(LimitReachedError, match="another search of yours is not over"):
            async with turns.turn("a"):
                pass
    async with turns.turn("a"):
        pass
    patient = SearchTurns()
    order: list[str] = []

    async def search(name: str) -> None:
        async with patient.turn("a"):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    await asyncio.gather(search("first"), search("second"))
    assert order == ["first begins", "first ends", "second begins", "second ends"]


async def test_however_many_searches_of_an_owner_wait_one_runs_at_a_time() -> None:
    turns = SearchTurns()
    running: list[int] = []

    async def client(name: int) -> None:
        for _ in range(5):
            async with turns.turn("a"):
                running.append(name)
                for _ in range(7):
                    await asyncio.sleep(0)
                    assert running == [name]
                running.clear()

    await asyncio.gather(*(client(name) for name in range(8)))


async def test_a_search_that_could_look_at_nothing_does_not_pass_for_a_finished_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "_MOST_SECONDS", 0.05)
    async with place.opened() as database:
        await stored(JobStore(database, "one"))
        with pytest.raises(UnavailableError, match="too much is searched for"):
            await Search(SlowQueries(database, 0), Filter(text="x"), "", 5, 0).page(None)


async def test_no_text_takes_a_search_very_long(place: Place) -> None:
    """LIKE would begin anew at each letter of the long one, and nothing could end that."""
    async with place.opened() as database:
        store = JobStore(database, "one")
        for prompt in ("a" * 5_000_000, "100 % of A_b!"):
            await stored(store, prompt)
        for text, wanted in (("a" * 999 + "b", 0), ("0 % OF a_B!", 1), ("0%o", 0), ("a_", 1), ("", 2)):
            page = await Search(store.queries, Filter(text=text), "", 5, 0).page(None)
            assert (page.total, page.is_complete) == (wanted, True), text


async def listed(service: RunningService, **query: Any) -> dict[str, Any]:
    status, page = await service.call("GET", "/api/v1/prompts", params={k: str(v) for k, v in query.items()})
    assert status == 200, page
    return dict(page)


async def test_a_list_goes_on_behind_the_job_that_next_names() -> None:
    async with service_in_process() as service:
        ids = [await service.finished(f"{('hay', 'a needle')[number % 2]} {number}") for number in range(12)]
        newest_first = ids[::-1]
        queries: tuple[tuple[dict[str, str], list[str]], ...] = (
            ({}, newest_first),
            ({"q": "NEEDLE"}, newest_first[::2]),
            ({"model": "llama3.2"}, newest_first),
        )
        for query, wanted in queries:
            found: list[str] = []
            page = await listed(service, page_size=5, **query)
            while True:
                found += [job["id"] for job in page["prompts"]]
                if page["next"] is None:
                    break
                page = await listed(service, page_size=5, before=page["next"], **query)
            assert found == wanted, query
        page = await listed(service, q="nowhere")
        assert (page["complete"], page["searched_until"], page["next"], page["total"]) == (True, None, None, 0)
        assert "complete" not in await listed(service)
        assert (await listed(service, before="00000000-0000-7000-8000-000000000000"))["prompts"] == []


async def test_a_place_in_the_list_is_an_id_in_letters_of_either_case() -> None:
    async with service_in_process() as service:
        older, newer = [await service.finished() for _ in range(2)]
        for before in (newer, newer.upper()):
            assert [job["id"] for job in (await listed(service, before=before))["prompts"]] == [older]
        for before in ("garbage", "!", newer + "0", "0" * 100):
            status, answer = await service.call("GET", "/api/v1/prompts", params={"before": before})
            assert (status, answer["field"]) == (400, "before"), before


async def test_a_list_goes_on_to_jobs_that_are_not_counted_yet() -> None:
    """Those of another process, and those that came while the page was read."""
    async with service_in_process() as service:
        for _ in range(3):
            await service.finished()
        database = service.jobs.views._queries._database
        [(seq,)] = await database.read("SELECT max(seq) FROM jobs", {})
        await duplicated(database, seq, 4)
        page = await listed(service, page_size=3)
        assert (page["total"], len(page["prompts"])) == (3, 3)
        assert page["next"] == page["prompts"][-1]["id"]
        found, after = page["prompts"], page["next"]
        while after is not None:
            behind = await service.jobs.views.page(Filter(), 3, 0, after)
            found, after = found + behind.jobs, behind.after
        assert len(found) == 7


async def test_who_leaves_takes_a_search_along() -> None:
    async with service_in_process() as service:
        turns = service.jobs.views.search_turns = SearchTurns(patience_seconds=3600)
        async with turns.turn("127.0.0.1"):
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(b"GET /api/v1/prompts?q=x HTTP/1.1\r\nHost: x\r\n\r\n")
            callers = service.app[CALLERS]
            await until(lambda: len(callers) == 1)
            writer.close()
            await until(lambda: len(callers) == 0)
            assert await reader.read() == b""
        assert (await listed(service, q="x"))["prompts"] == []


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
