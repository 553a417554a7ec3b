"""The list of all prompts: live, in pages, filtered, and at its ease with ten thousand rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from service.config import DatabaseConfig
from service.job import NewJob, new_job_id
from service.simulated import Fault, FaultKind
from service.store.jobs import JobStore
from service.store.opening import open_database
from tests.browser.visiting import PromptPage, Stage, Visitor, staged, visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROWS = 10_000
FIRST_TIME = 1_700_000_000_000


class ListPage:
    """The parts of the list's page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.rows = page.locator("tbody").get_by_role("row")
        self.total = page.locator("#total")
        self.text = page.get_by_role("searchbox", name="Text")
        self.status = page.get_by_role("combobox", name="Status")
        self.model = page.get_by_role("combobox", name="Model")
        self.page_number = page.get_by_role("spinbutton", name="Page")
        self.newer = page.locator("#newer")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def crowded_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A service with ten thousand prompts that wait, since nothing answers; every hundredth for another model."""
    folder = tmp_path_factory.mktemp("crowded")
    await _fill(folder / "queue.db")
    async with staged(folder, OLLAMA_URL="http://127.0.0.1:9", CORRAL_QUEUE__MAX_SIZE="20000") as stage:
        yield stage


async def _fill(path: Path) -> None:
    database = await open_database(DatabaseConfig(path=path))
    store = JobStore(database, own_name="")
    try:
        await asyncio.gather(*(_insert(store, number) for number in range(1, ROWS + 1)))
    finally:
        await database.close()


async def _insert(store: JobStore, number: int) -> None:
    model = "rare" if number % 100 == 0 else "llama3.2"
    new = NewJob("prompts", "/api/generate", model, "{}", f"Prompt number {number}")
    now = FIRST_TIME + number
    await store.insert(store.new_job(new, new_job_id(now), now), new)


@pytest_asyncio.fixture(loop_scope="session")
async def crowded_page(browser: Browser, crowded_stage: Stage) -> AsyncIterator[ListPage]:
    async with visiting(browser, crowded_stage.url) as visitor:
        yield ListPage(await visitor.open("/list"))


async def test_ten_thousand_prompts_are_shown_a_page_at_a_time(crowded_page: ListPage) -> None:
    await expect(crowded_page.total).to_have_text("10,000 prompts")
    await expect(crowded_page.rows).to_have_count(25)
    await expect(crowded_page.rows.first).to_contain_text("Prompt number 10000")
    await expect(crowded_page.button("First")).to_be_disabled()
    await expect(crowded_page.button("Previous")).to_be_disabled()
    await crowded_page.button("Next").click()
    await expect(crowded_page.rows.first).to_contain_text("Prompt number 9975")
    await crowded_page.button("Last").click()
    await expect(crowded_page.rows.last).to_contain_text("Prompt number 1")
    await expect(crowded_page.page_number).to_have_value("400")
    await expect(crowded_page.button("Next")).to_be_disabled()
    await expect(crowded_page.page.locator("#announcement")).to_have_text("10,000 prompts, page 400 of 400")
    await crowded_page.page_number.fill("200")
    await crowded_page.page_number.press("Enter")
    await expect(crowded_page.rows.first).to_contain_text("Prompt number 5025")
    await crowded_page.page.reload()
    await expect(crowded_page.rows.first).to_contain_text("Prompt number 5025")
    await crowded_page.page.go_back()
    await expect(crowded_page.rows.last).to_contain_text("Prompt number 1")
    await crowded_page.page.get_by_role("combobox", name="Rows").select_option("100")
    await expect(crowded_page.rows).to_have_count(100)
    await expect(crowded_page.rows.last).to_contain_text("Prompt number 9901")


async def test_a_page_beyond_the_last_is_the_last(crowded_page: ListPage) -> None:
    await crowded_page.page.goto(f"{crowded_page.page.url}?page=4000")
    await expect(crowded_page.page_number).to_have_value("400")
    await expect(crowded_page.rows.last).to_contain_text("Prompt number 1")


async def test_the_list_is_filtered_and_the_address_remembers_it(crowded_page: ListPage) -> None:
    await crowded_page.text.fill("number 77")
    await expect(crowded_page.total).to_have_text("111 prompts")
    await crowded_page.model.fill("RARE")
    await expect(crowded_page.rows).to_have_count(1)
    await expect(crowded_page.rows).to_contain_text("Prompt number 7700")
    await crowded_page.page.reload()
    await expect(crowded_page.rows).to_have_count(1)
    await expect(crowded_page.text).to_have_value("number 77")
    await crowded_page.status.select_option("Failed")
    await expect(crowded_page.page.get_by_text("No prompt fits this filter.")).to_be_visible()
    await expect(crowded_page.rows).to_have_count(0)


async def test_what_is_new_or_changes_among_ten_thousand_is_seen_at_once(
    crowded_page: ListPage, crowded_stage: Stage
) -> None:
    await expect(crowded_page.total).to_have_text("10,000 prompts")
    job_id = await crowded_stage.submit("The newest of all")
    await expect(crowded_page.rows.first).to_contain_text("The newest of all")
    await expect(crowded_page.rows.first).to_contain_text("Queued")
    created, updated = (crowded_page.rows.first.locator(f".{name} time") for name in ("created", "updated"))
    made_at = str(await created.get_attribute("datetime"))
    await expect(updated).to_have_attribute("datetime", made_at)
    await crowded_stage.cancel(job_id)
    await expect(crowded_page.rows.first).to_contain_text("Cancelled")
    await expect(updated).not_to_have_attribute("datetime", made_at)
    await expect(created).to_have_attribute("datetime", made_at)
    for width in (1280, 390):
        await crowded_page.page.set_viewport_size({"width": width, "height": 700})
        await expect(updated).to_be_in_viewport()
    await expect(crowded_page.rows).to_have_count(25)


async def test_places_in_the_queue_move_up_in_the_list(crowded_page: ListPage, crowded_stage: Stage) -> None:
    await crowded_page.text.fill("Waits behind somebody")
    ahead = await crowded_stage.submit("Nobody's business", model="quiet")
    await crowded_stage.submit("Waits behind somebody", model="quiet")
    await expect(crowded_page.rows).to_have_count(1)
    await expect(crowded_page.rows).to_contain_text("Queued · 2")
    await crowded_page.rows.hover()
    await crowded_stage.cancel(ahead)
    await expect(crowded_page.rows).to_contain_text("Queued · 1")


async def test_a_reader_of_an_older_page_is_told_of_what_is_new_and_not_disturbed(
    crowded_page: ListPage, crowded_stage: Stage
) -> None:
    await crowded_page.button("Next").click()
    await expect(crowded_page.page_number).to_have_value("2")
    first = await crowded_page.rows.first.inner_text()
    await crowded_stage.cancel(await crowded_stage.submit("Newer than what is read"))
    await expect(crowded_page.newer).to_have_text("New prompts: go to the first page")
    assert await crowded_page.rows.first.inner_text() == first
    await crowded_page.newer.click()
    await expect(crowded_page.rows.first).to_contain_text("Newer than what is read")


@pytest_asyncio.fixture(loop_scope="session")
async def list_page(visitor: Visitor) -> ListPage:
    return ListPage(await visitor.open("/list"))


async def test_rows_follow_their_jobs_and_lead_to_them(stage: Stage, list_page: ListPage) -> None:
    stalled = stage.stall("row by row")
    await stage.submit("Followed row by row until its end", priority="high")
    row = list_page.rows.first
    await expect(row).to_contain_text("Followed row by row until its end")
    await expect(row).to_contain_text("Writing")
    await expect(row).to_contain_text("high")
    stalled.release()
    await expect(row).to_contain_text("Completed")
    await row.get_by_role("link").click()
    await PromptPage(list_page.page).shows("Completed", "Followed row by row until its end")


async def test_a_list_of_one_status_takes_in_and_gives_away_rows(stage: Stage, list_page: ListPage) -> None:
    await list_page.text.fill("comes and goes")
    await list_page.status.select_option("Writing")
    await expect(list_page.page.get_by_text("No prompt fits this filter.")).to_be_visible()
    stalled = stage.stall("comes and goes")
    await stage.submit("One that comes and goes")
    await expect(list_page.rows).to_have_count(1)
    stalled.release()
    await expect(list_page.rows).to_have_count(0)
    await list_page.status.select_option("Completed")
    await expect(list_page.rows).to_have_count(1)


async def test_a_failed_prompt_is_found_by_its_status(stage: Stage, list_page: ListPage) -> None:
    stage.ollama.arm(Fault(kind=FaultKind.ERROR, prompt="bound to fail", status=400, message="bad template"))
    await stage.submit("One that is bound to fail")
    await list_page.status.select_option("Failed")
    await expect(list_page.rows.first).to_contain_text("One that is bound to fail")


async def test_rows_do_not_move_under_the_pointer(stage: Stage, list_page: ListPage) -> None:
    await stage.submit("Held under the pointer")
    await expect(list_page.rows.first).to_contain_text("Held under the pointer")
    await list_page.rows.first.hover()
    await stage.submit("Arrived meanwhile")
    await expect(list_page.newer).to_have_text("The list has changed: show it now")
    await expect(list_page.rows.first).to_contain_text("Held under the pointer")
    await list_page.page.get_by_role("heading", name="All prompts").hover()
    await expect(list_page.rows.first).to_contain_text("Arrived meanwhile")
    await expect(list_page.newer).to_be_hidden()
