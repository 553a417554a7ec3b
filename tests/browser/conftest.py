"""One Chromium and one service for all tests of the pages; each test has its own visitors and its own prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.browser.visiting import PATIENCE_MILLISECONDS, PromptPage, Stage, Visitor, staged, visiting

_ARGUMENTS = (
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser(chromium_path: str) -> AsyncIterator[Browser]:
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium_path, args=list(_ARGUMENTS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("service")) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def stage(shared_stage: Stage) -> AsyncIterator[Stage]:
    """The service that all tests share, with no fault left over."""
    yield shared_stage
    shared_stage.ollama.faults.clear()


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser, stage: Stage) -> AsyncIterator[Visitor]:
    async with visiting(browser, stage.url) as visitor:
        yield visitor


@pytest_asyncio.fixture(loop_scope="session")
async def prompt_page(visitor: Visitor) -> PromptPage:
    """The prompt page as it looks to somebody who comes for the first time."""
    return PromptPage(await visitor.open())
