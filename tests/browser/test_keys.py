"""The pages of a service that wants a key: they ask for it once, keep it in the tab, use it for the websocket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser.visiting import PromptPage, Stage, Visitor, staged, visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "a-key-of-a-user-for-the-tests-of-the-pages"
OTHER_KEY = "another-key-of-an-admin-for-these-same-tests"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def locked_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    settings = {"CORRAL_AUTH__REQUIRED": "true", "DEMO_USER_KEY": KEY, "DEMO_ADMIN_KEY": OTHER_KEY}
    async with staged(tmp_path_factory.mktemp("locked"), **settings) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def guest(browser: Browser, locked_stage: Stage) -> AsyncIterator[Visitor]:
    async with visiting(browser, locked_stage.url) as visitor:
        visitor.expects("status of 401")
        yield visitor
    locked_stage.ollama.faults.clear()


async def give(page: Page, key: str) -> None:
    """Answer the question for a key."""
    await page.get_by_role("textbox", name="API key").fill(key)
    await page.get_by_role("button", name="Use this key").click()


async def test_a_key_is_asked_for_and_kept_in_the_tab(locked_stage: Stage, guest: Visitor) -> None:
    page = PromptPage(await guest.open())
    await page.prompt.fill("Answered to whom has a key")
    await page.send.click()
    await expect(page.page.get_by_role("dialog", name="An API key is needed")).to_be_visible()
    await expect(page.page.get_by_role("textbox", name="API key")).to_be_focused()
    await give(page.page, "this is not a key of theirs")
    await expect(page.page.get_by_role("dialog", name="This key was not accepted")).to_be_visible()
    stalled = locked_stage.stall("whom has a key")
    await give(page.page, KEY)
    await page.shows("Writing", "Answered to whom")
    stalled.release()
    await page.shows("Completed", "Answered to whom has a key")
    await page.page.reload()
    await page.shows("Completed", "Answered to whom has a key")
    await expect(page.page.get_by_role("dialog")).to_have_count(0)


async def test_without_a_key_nothing_is_lost_and_nothing_is_shown(guest: Visitor) -> None:
    page = PromptPage(await guest.open())
    await page.prompt.fill("Kept for later")
    await page.send.click()
    await page.page.get_by_role("button", name="Not now").click()
    await expect(page.page.get_by_role("alert")).to_contain_text("key")
    await expect(page.prompt).to_have_value("Kept for later")


async def test_the_list_is_that_of_the_key(locked_stage: Stage, guest: Visitor) -> None:
    own = await guest.open("/list")
    await give(own, KEY)
    rows = own.locator("tbody").get_by_role("row")
    page = PromptPage(await guest.open())
    await page.prompt.fill("An admin asks")
    await page.send.click()
    await give(page.page, OTHER_KEY)
    await page.shows("Completed", "An admin asks")
    await page.page.goto(f"{locked_stage.url}/list")
    await expect(page.page.locator("tbody").get_by_role("row").first).to_contain_text("An admin asks")
    await own.bring_to_front()
    await own.reload()
    await expect(own.locator("#total")).to_contain_text("prompt")
    await expect(rows.filter(has_text="An admin asks")).to_have_count(0)
