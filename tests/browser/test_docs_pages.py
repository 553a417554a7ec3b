"""The pages that show the API's document: they work on a machine without a network, and load nothing from elsewhere."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, Request, expect

from tests.browser.visiting import Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def foreign_requests_of(visitor: Visitor, path: str) -> tuple[Page, list[str]]:
    """The page, and the addresses that it and its workers ask for beside those of our own host; the list grows."""
    foreign: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith((visitor.url, "data:", "blob:")):
            foreign.append(request.url)

    visitor.context.on("request", note)
    return await visitor.open(path), foreign


@pytest.mark.parametrize("path", ["/", "/list"])
async def test_every_page_leads_to_the_document(visitor: Visitor, path: str) -> None:
    page = await visitor.open(path)
    pages = page.get_by_role("navigation", name="Pages")
    await pages.get_by_role("link", name="API documentation").click()
    await expect(page).to_have_url(f"{visitor.url}/docs")
    await expect(page.get_by_role("heading", level=2)).to_contain_text("Corral")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_document_leads_back_to_the_pages(visitor: Visitor, path: str) -> None:
    page = await visitor.open(path)
    pages = page.get_by_role("navigation", name="Pages")
    await expect(pages.locator("[aria-current=page]")).to_have_attribute("href", path.removeprefix("/"))
    await pages.get_by_role("link", name="All prompts").click()
    await expect(page).to_have_url(f"{visitor.url}/list")


async def test_swagger_ui_shows_the_document_and_asks_nobody_else(visitor: Visitor) -> None:
    page, foreign = await foreign_requests_of(visitor, "/docs")
    await expect(page.get_by_role("heading", level=2)).to_contain_text("Corral")
    submit = page.locator("#operations-prompts-post_api_v1_prompt")
    await submit.click()
    await expect(submit.get_by_role("button", name="Execute")).to_be_visible()
    await page.wait_for_load_state("networkidle")
    assert foreign == []


async def test_swagger_ui_calls_the_service(visitor: Visitor) -> None:
    page, _ = await foreign_requests_of(visitor, "/docs")
    health = page.locator("#operations-operation-get_health")
    await health.click()
    await health.get_by_role("button", name="Execute").click()
    await expect(health.locator(".live-responses-table td.response-col_status").last).to_contain_text("200")


async def test_redoc_shows_the_document_and_asks_nobody_else(visitor: Visitor) -> None:
    page, foreign = await foreign_requests_of(visitor, "/redoc")
    await expect(page.get_by_role("heading", name="Submit a prompt").first).to_be_visible()
    search = page.get_by_role("textbox", name="Search")
    await search.fill("websocket")
    await expect(page.get_by_role("menuitem").get_by_text("Open a websocket").first).to_be_visible()
    await page.wait_for_load_state("networkidle")
    assert foreign == []
