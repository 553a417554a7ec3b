"""What the tests of the pages share: a reader with a browser of their own, and a service with a simulated Ollama."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect

from service.simulated import ArmedFault, Fault, FaultKind, SimulatedModel, SimulatedServer, SimulatedSettings
from tests.support.processes import Service, running_service

PATIENCE_MILLISECONDS = 60_000
"""For what should happen at once: only a test that fails waits so long."""

REFUSED_CONNECTION = r"net::ERR_(CONNECTION|EMPTY_RESPONSE|INCOMPLETE|INTERNET|SOCKET|NETWORK)|WebSocket connection to"
"""Chromium itself writes such a line for each connection that a killed service refuses; no page can prevent it."""

MODELS = (SimulatedModel("llama3.2"), SimulatedModel("thinker", ("completion", "thinking")))
ECHO = SimulatedSettings(models=MODELS, parallel=8, answer_style="echo")
"""The answer is the prompt, word by word: a test writes its own answers."""


class Stage:
    """A service that runs as a process, and what answers behind it."""

    def __init__(self, service: Service, ollama: SimulatedServer, session: aiohttp.ClientSession) -> None:
        self.service = service
        self.ollama = ollama
        self._session = session

    @property
    def url(self) -> str:
        return self.service.url

    def stall(self, prompt: str, after_tokens: int = 3, **which: Any) -> ArmedFault:
        """Let the answer to prompts with these words stop in the middle until the fault is released."""
        return self.ollama.arm(Fault(kind=FaultKind.STALL, prompt=prompt, after_tokens=after_tokens, **which))

    async def submit(self, prompt: str, **fields: Any) -> str:
        """The id of a job of somebody else's."""
        return await self.submit_fields(prompt=prompt, **fields)

    async def submit_fields(self, **fields: Any) -> str:
        """The same, of a job that is not just a prompt."""
        async with self._session.post(f"{self.url}/api/v1/prompt", json=fields) as response:
            answer = await response.json()
            assert response.status == 202, answer
            return str(answer["id"])

    async def cancel(self, job_id: str) -> None:
        async with self._session.delete(f"{self.url}/api/v1/prompt/{job_id}") as response:
            assert response.status == 200


@asynccontextmanager
async def staged(folder: Path, **settings: str) -> AsyncIterator[Stage]:
    """A service of this test's own, with its database in the folder; settings are environment variables."""
    async with SimulatedServer(ECHO) as ollama, aiohttp.ClientSession() as session:
        defaults = {"OLLAMA_URL": ollama.url, "CORRAL_RETRY__INITIAL_SECONDS": "0.01"}
        async with running_service(folder, **{**defaults, **settings}) as service:
            yield Stage(service, ollama, session)


class Visitor:
    """Somebody with a browser: tabs that share a memory. What the console complains of is kept."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.complaints: list[str] = []
        self._expected: list[str] = []
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.complaints.append(f"{error.error}"))

    async def open(self, path: str = "/") -> Page:
        """A new tab, in front of the others: those in the background draw once a second only."""
        page = await self.context.new_page()
        await page.goto(self.url + path)
        return page

    def expects(self, pattern: str) -> None:
        """Do not keep complaints with this pattern in them."""
        self._expected.append(pattern)

    def _hear(self, message: ConsoleMessage) -> None:
        text = f"{message.text} ({message.location['url']})"
        is_expected = any(re.search(pattern, text) for pattern in self._expected)
        if message.type in ("error", "warning") and not is_expected:
            self.complaints.append(text)


@asynccontextmanager
async def visiting(browser: Browser, url: str, **options: Any) -> AsyncIterator[Visitor]:
    """A visitor with these options of a browser context; a page that complained of something fails the test."""
    context = await browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    visitor = Visitor(context, url)
    try:
        yield visitor
        assert visitor.complaints == []
    finally:
        await context.close()


class PromptPage:
    """The parts of the prompt page, by the names that everybody knows them by."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.prompt = page.get_by_role("textbox", name="Prompt")
        self.model = page.get_by_role("combobox", name="Model")
        self.priority = page.get_by_role("combobox", name="Priority")
        self.send = page.get_by_role("button", name="Send")
        self.heading = page.locator("#job-heading")
        self.status = page.locator("#job-status")
        self.detail = page.locator("#job-detail")
        self.answer = page.get_by_role("region", name="Answer", exact=True)
        self.problem = page.locator("#job-problem")
        self.notice = page.locator("#connection")
        self.announcement = page.locator("#announcement")
        self.recent = page.get_by_role("complementary", name="Your recent prompts").get_by_role("listitem")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    async def ask(self, prompt: str) -> None:
        """Send a prompt with the form."""
        await self.prompt.fill(prompt)
        await self.send.click()
        await expect(self.heading).to_have_text(prompt)

    async def shows(self, status: str, answer: str | None = None) -> None:
        """Wait until the job has this status and, where one is given, exactly this answer."""
        await expect(self.status).to_have_text(status)
        if answer is not None:
            await expect(self.answer).to_have_text(answer)
