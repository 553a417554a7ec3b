"""Answers that nobody expects from a model: the page shows them and goes on."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.visiting import PromptPage, Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWERS = {
    # Each sign is a quote within a quote.
    "quotes": ">" * 15_000 + "inmost",
    # A line that has to be broken before anything stands in its block, and one behind another.
    "a_first_line": "x" * 16_001,
    "a_later_line": "Well:\n" + "x" * 16_001,
    "code": "```\n" + "x" * 16_001,
}


async def test_deep_quotes_and_long_lines_are_shown_to_their_end(prompt_page: PromptPage, stage: Stage) -> None:
    for name, text in ANSWERS.items():
        job_id = await stage.submit(f"{text}\n\nthe end of {name}")
        await prompt_page.page.goto(f"{stage.url}/?job={job_id}")
        await expect(prompt_page.status).to_have_text("Completed")
        await expect(prompt_page.answer).to_contain_text(f"the end of {name}")
        shown = await prompt_page.answer.text_content() or ""
        assert shown.count("x") == text.count("x")
        assert shown.count(">") >= min(text.count(">"), 14_000)
    await prompt_page.ask("Are you there?")
    await prompt_page.shows("Completed", "Are you there?")
