"""The prompt page: ask, watch the answer being written, come back, cancel, ask again, copy."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser, expect

from service.simulated import Fault, FaultKind
from tests.browser.visiting import PromptPage, Stage, Visitor, visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_answer_is_seen_while_it_is_written(stage: Stage, prompt_page: PromptPage) -> None:
    stalled = stage.stall("seven words")
    await prompt_page.ask("An answer of just seven words arrives")
    await prompt_page.shows("Writing", "An answer of")
    stalled.release()
    await prompt_page.shows("Completed", "An answer of just seven words arrives")
    await expect(prompt_page.announcement).to_have_text("The answer is complete.")
    await expect(prompt_page.page.locator("#job-facts")).to_contain_text("7 tokens")
    await expect(prompt_page.prompt).to_have_value("")


async def test_the_models_to_choose_from_are_offered_and_the_default_is_named(prompt_page: PromptPage) -> None:
    await expect(prompt_page.model).to_have_attribute("placeholder", "llama3.2")
    names = await prompt_page.page.locator("#models option").evaluate_all(
        "options => options.map(({ value }) => value)"
    )
    assert names == ["llama3.2:latest", "thinker:latest"]


async def test_model_and_priority_are_those_that_were_chosen(prompt_page: PromptPage) -> None:
    await prompt_page.model.fill("thinker")
    await prompt_page.priority.select_option("High")
    await prompt_page.ask("Think before you speak")
    await prompt_page.shows("Completed", "Think before you speak")
    await expect(prompt_page.detail).to_have_text("thinker · high priority")
    await prompt_page.page.get_by_text("Thinking", exact=True).click()
    await expect(prompt_page.page.locator("#thinking-text")).to_contain_text("The prompt asks something")


async def test_a_reload_comes_back_to_the_running_job(stage: Stage, prompt_page: PromptPage) -> None:
    stalled = stage.stall("come back")
    await prompt_page.ask("I will come back to this one later")
    await prompt_page.shows("Writing", "I will come")
    await prompt_page.page.reload()
    await prompt_page.shows("Writing", "I will come")
    stalled.release()
    await prompt_page.shows("Completed", "I will come back to this one later")
    await prompt_page.page.reload()
    await prompt_page.shows("Completed", "I will come back to this one later")


async def test_a_waiting_job_shows_its_place_and_moves_up(stage: Stage, prompt_page: PromptPage) -> None:
    stage.stall("takes a seat")
    for number in range(5):
        await stage.submit(f"Number {number} takes a seat")
    await stage.ollama.observations.until(lambda seen: seen.stalled == 5)
    first = await stage.submit("First in line")
    await prompt_page.ask("Second in line")
    await prompt_page.shows("Queued")
    await expect(prompt_page.detail).to_contain_text("Position 2")
    await stage.cancel(first)
    await expect(prompt_page.detail).to_contain_text("Next in line")
    stage.ollama.faults.clear()
    await prompt_page.shows("Completed", "Second in line")


async def test_a_queued_job_can_be_cancelled(stage: Stage, prompt_page: PromptPage) -> None:
    stage.stall("takes a seat")
    seated = [await stage.submit(f"Number {number} takes a seat") for number in range(5)]
    await stage.ollama.observations.until(lambda seen: seen.stalled == 5)
    await prompt_page.ask("Never begun")
    await prompt_page.shows("Queued")
    await prompt_page.button("Cancel").click()
    await prompt_page.shows("Cancelled")
    await expect(prompt_page.button("Cancel")).to_be_hidden()
    for job_id in seated:
        await stage.cancel(job_id)
    assert "Never begun" not in stage.ollama.observations.prompts


async def test_a_running_job_can_be_cancelled_and_what_it_wrote_stays(stage: Stage, prompt_page: PromptPage) -> None:
    stage.stall("halfway")
    closed = stage.ollama.observations.closed_connections
    await prompt_page.ask("This one ends halfway and not later")
    await prompt_page.shows("Writing", "This one ends")
    await prompt_page.button("Cancel").click()
    await prompt_page.shows("Cancelled", "This one ends")
    await stage.ollama.observations.until(lambda seen: seen.closed_connections == closed + 1)
    await prompt_page.page.reload()
    await prompt_page.shows("Cancelled", "This one ends")


async def test_a_failed_job_shows_its_error_and_what_it_wrote_and_can_be_asked_again(
    stage: Stage, prompt_page: PromptPage
) -> None:
    stage.ollama.arm(Fault(kind=FaultKind.RUNNER_KILLED, prompt="goes wrong", after_tokens=3, times=2))
    await prompt_page.ask("This one goes wrong at first")
    await prompt_page.shows("Failed", "This one goes")
    await expect(prompt_page.problem).to_contain_text("runner")
    said = await prompt_page.problem.inner_text()
    await expect(prompt_page.announcement).to_have_text(f"Failed. {said}")
    await prompt_page.page.reload()
    await prompt_page.shows("Failed", "This one goes")
    await expect(prompt_page.problem).to_have_text(said)
    failed = prompt_page.page.url
    await prompt_page.button("Ask again").click()
    await prompt_page.shows("Completed", "This one goes wrong at first")
    await expect(prompt_page.problem).to_be_hidden()
    assert prompt_page.page.url != failed
    await prompt_page.page.go_back()
    await prompt_page.shows("Failed", "This one goes")


async def test_the_answer_of_a_repeated_attempt_is_not_spliced(stage: Stage, prompt_page: PromptPage) -> None:
    first = stage.stall("whole truth", after_tokens=3, times=1)
    second = stage.stall("whole truth", after_tokens=4, skip=1)
    stage.ollama.arm(Fault(kind=FaultKind.NO_DONE, prompt="whole truth", after_tokens=5, times=1))
    await prompt_page.ask("Nothing but the whole truth is told here")
    await prompt_page.shows("Writing", "Nothing but the")
    first.release()
    await expect(prompt_page.detail).to_contain_text("attempt 2")
    await prompt_page.shows("Writing", "Nothing but the whole")
    second.release()
    await prompt_page.shows("Completed", "Nothing but the whole truth is told here")


async def test_a_prompt_can_be_edited_and_asked(stage: Stage, prompt_page: PromptPage) -> None:
    await prompt_page.priority.select_option("Low")
    await prompt_page.ask("Edit me")
    await prompt_page.shows("Completed", "Edit me")
    await prompt_page.button("Edit and ask").click()
    await expect(prompt_page.prompt).to_be_focused()
    await expect(prompt_page.prompt).to_have_value("Edit me")
    await expect(prompt_page.priority).to_have_value("low")
    await prompt_page.ask("Edited")
    await prompt_page.shows("Completed", "Edited")


async def test_a_prompt_for_later_says_when_it_starts_and_not_that_it_was_tried(
    stage: Stage, prompt_page: PromptPage
) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    job_id = await stage.submit("Not before tomorrow", not_before=tomorrow)
    await prompt_page.page.goto(f"{stage.url}/?job={job_id}")
    await prompt_page.shows("Queued")
    await expect(prompt_page.detail).to_have_text(re.compile("^starts at .* · llama3.2$"))
    await stage.cancel(job_id)


async def test_the_long_prompt_of_another_browser_can_be_read_whole_and_asked_again(
    stage: Stage, prompt_page: PromptPage
) -> None:
    prompt = " ".join(f"word{number}" for number in range(80))
    await prompt_page.page.goto(f"{stage.url}/?job={await stage.submit(prompt)}")
    await prompt_page.shows("Completed", prompt)
    await prompt_page.button("Show the whole prompt").click()
    await expect(prompt_page.heading).to_have_text(prompt)
    before = prompt_page.page.url
    await prompt_page.button("Ask again").click()
    await expect(prompt_page.page).not_to_have_url(before)
    await prompt_page.shows("Completed", prompt)


TURNS = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "1"}]
PIXEL = "R0lGODlhAQABAAAAACw="
MORE = {"system": "Be brief.", "options": {"seed": 7}, "keep_alive": "5m", "priority": "high"}


@pytest.mark.parametrize(
    ("fields", "is_editable"),
    [
        ({"prompt": "More than a prompt", "format": "json", "images": [PIXEL], "think": True}, True),
        ({"messages": [*TURNS, {"role": "user", "content": "More than a prompt", "images": [PIXEL]}]}, False),
    ],
    ids=["prompt", "chat"],
)
async def test_all_that_was_asked_is_asked_again(
    stage: Stage, prompt_page: PromptPage, fields: dict[str, Any], is_editable: bool
) -> None:
    job_id = await stage.submit_fields(model="thinker", **fields, **MORE)
    await prompt_page.page.goto(f"{stage.url}/?job={job_id}")
    await prompt_page.shows("Completed")
    await expect(prompt_page.button("Edit and ask")).to_be_visible(visible=is_editable)
    await prompt_page.button("Ask again").click()
    await expect(prompt_page.page).not_to_have_url(re.compile(job_id))
    await expect(prompt_page.heading).to_have_text("More than a prompt")
    await prompt_page.shows("Completed")
    await expect(prompt_page.detail).to_have_text("thinker · high priority")
    first, again = [json.loads(seen.body) for seen in stage.ollama.observations.seen][-2:]
    assert first == again
    assert again["options"] == {"seed": 7}


async def test_what_cannot_be_asked_again_as_it_was_is_refused_with_the_reason(
    stage: Stage, visitor: Visitor, prompt_page: PromptPage
) -> None:
    visitor.expects("400")
    async with aiohttp.ClientSession(stage.url) as session:
        body = {"model": "llama3.2", "prompt": "Told raw", "raw": True}
        async with session.post("/api/generate", json=body) as response:
            job_id = response.headers["X-Job-Id"]
            await response.read()
    await prompt_page.page.goto(f"{stage.url}/?job={job_id}")
    await prompt_page.shows("Completed", "Told raw")
    await prompt_page.button("Ask again").click()
    await expect(prompt_page.page.get_by_role("alert")).to_contain_text("raw")
    await expect(prompt_page.prompt).to_be_focused()
    assert prompt_page.page.url.endswith(job_id)


async def test_a_call_in_another_dialect_is_not_asked_again(stage: Stage, prompt_page: PromptPage) -> None:
    async with aiohttp.ClientSession(stage.url) as session:
        body = {"model": "llama3.2", "messages": [{"role": "user", "content": "In their words"}]}
        async with session.post("/v1/chat/completions", json=body) as response:
            job_id = response.headers["X-Job-Id"]
            await response.read()
    await prompt_page.page.goto(f"{stage.url}/?job={job_id}")
    await prompt_page.shows("Completed", "In their words")
    await expect(prompt_page.button("Copy answer")).to_be_visible()
    await expect(prompt_page.button("Ask again")).to_be_hidden()


async def test_answer_and_link_can_be_copied(browser: Browser, stage: Stage) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    async with visiting(browser, stage.url, permissions=permissions) as visitor:
        prompt_page = PromptPage(await visitor.open())
        await prompt_page.ask("Copy **this** as it came")
        await prompt_page.shows("Completed", "Copy this as it came")
        await prompt_page.button("Copy answer").click()
        await expect(prompt_page.announcement).to_have_text("Copied")
        assert await prompt_page.page.evaluate("navigator.clipboard.readText()") == "Copy **this** as it came"
        await prompt_page.button("Copy link").click()
        await expect(prompt_page.button("Copied")).to_have_count(2)
        assert await prompt_page.page.evaluate("navigator.clipboard.readText()") == prompt_page.page.url


async def test_copying_works_on_a_page_that_is_not_secure(visitor: Visitor) -> None:
    # There is no clipboard interface on http://some-other-host, and that is where a shared queue is.
    await visitor.context.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    prompt_page = PromptPage(await visitor.open())
    await prompt_page.ask("Copy me by selection")
    await prompt_page.shows("Completed", "Copy me by selection")
    await prompt_page.button("Copy answer").click()
    await expect(prompt_page.announcement).to_have_text("Copied")
    await prompt_page.prompt.focus()
    await prompt_page.page.keyboard.press("Control+V")
    await expect(prompt_page.prompt).to_have_value("Copy me by selection")


async def test_what_the_service_refuses_is_said_at_the_form(visitor: Visitor, prompt_page: PromptPage) -> None:
    visitor.expects("status of 400")
    await prompt_page.prompt.fill("  ")
    await prompt_page.send.click()
    await expect(prompt_page.page.get_by_role("alert")).to_have_text("Write a prompt first.")
    await prompt_page.prompt.fill("Hello")
    await prompt_page.model.fill("two words")
    await prompt_page.send.click()
    await expect(prompt_page.page.get_by_role("alert")).to_contain_text("model: must be the name of a model")
    await expect(prompt_page.prompt).to_have_value("Hello")


async def test_a_job_that_does_not_exist_is_said_to_be_missing(visitor: Visitor) -> None:
    visitor.expects("status of 404")
    prompt_page = PromptPage(await visitor.open("/?job=01a1f918-9953-78d9-8232-f9fc54ecf5c2"))
    await expect(prompt_page.heading).to_have_text("Not found")
    await expect(prompt_page.problem).to_contain_text("There is no such prompt.")


async def test_an_unsent_prompt_outlives_a_reload(prompt_page: PromptPage) -> None:
    await prompt_page.prompt.fill("Not yet sent")
    await prompt_page.page.reload()
    await expect(prompt_page.prompt).to_have_value("Not yet sent")


async def test_two_tabs_show_the_same_job_and_hear_of_each_other(stage: Stage, visitor: Visitor) -> None:
    stalled = stage.stall("both tabs")
    second = PromptPage(await visitor.open())
    first = PromptPage(await visitor.open())
    await first.ask("Seen in both tabs at once")
    await first.shows("Writing", "Seen in both")
    await second.page.bring_to_front()
    await expect(second.recent).to_have_count(1)
    await expect(second.recent).to_contain_text("Writing")
    await second.recent.get_by_role("link").click()
    await second.shows("Writing", "Seen in both")
    stalled.release()
    await second.shows("Completed", "Seen in both tabs at once")
    await expect(second.recent).to_contain_text("Completed")
    await first.page.bring_to_front()
    await first.shows("Completed", "Seen in both tabs at once")


async def test_a_cancel_in_one_tab_is_seen_in_the_other(stage: Stage, visitor: Visitor) -> None:
    stage.stall("called off")
    first = PromptPage(await visitor.open())
    await first.ask("To be called off from elsewhere")
    await first.shows("Writing", "To be called")
    second = PromptPage(await visitor.open(first.page.url.removeprefix(stage.url)))
    await second.shows("Writing", "To be called")
    await second.button("Cancel").click()
    await second.shows("Cancelled", "To be called")
    await first.page.bring_to_front()
    await first.shows("Cancelled", "To be called")


async def test_an_answer_stays_text_whatever_is_in_it(stage: Stage, prompt_page: PromptPage) -> None:
    hostile = (
        "<img src=x onerror=alert(1)> <script>alert(2)</script> [click](javascript:alert(3)) "
        '<style>*{display:none}</style> <iframe src="//example.org"></iframe> <b>bold</b>'
    )
    await prompt_page.ask(hostile)
    await prompt_page.shows("Completed", hostile)
    await expect(prompt_page.answer.locator("img, script, style, iframe, b, a")).to_have_count(0)


async def test_markdown_is_formatted_and_shown_plain_on_request(stage: Stage, prompt_page: PromptPage) -> None:
    source = (
        "# Title\n\nA **bold** word, `code`, https://example.org/a_b_c.\n\n- one\n- two\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint('<b>')\n```\n\nThe end"
    )
    await prompt_page.prompt.fill(source)
    await prompt_page.send.click()
    await prompt_page.shows("Completed")
    answer = prompt_page.answer
    await expect(answer.get_by_role("heading", name="Title")).to_be_visible()
    await expect(answer.locator("strong")).to_have_text("bold")
    await expect(answer.get_by_role("link")).to_have_attribute("href", "https://example.org/a_b_c")
    await expect(answer.get_by_role("listitem")).to_have_text(["one", "two"])
    await expect(answer.get_by_role("cell")).to_have_text(["1", "2"])
    await expect(answer.get_by_role("group", name="Code, python")).to_have_text("print('<b>')\n")
    await prompt_page.button("Plain text").click()
    await expect(answer).to_contain_text(re.compile(re.escape("# Title")))
    await expect(answer.locator("strong, li, table, pre")).to_have_count(0)


async def test_the_page_follows_a_growing_answer_until_the_reader_scrolls_away(
    stage: Stage, prompt_page: PromptPage
) -> None:
    lines = "\n\n".join(f"Line {number}." for number in range(80))
    stalled = stage.stall("Line 79", after_tokens=150)
    await prompt_page.prompt.fill(lines)
    await prompt_page.send.click()
    await expect(prompt_page.answer.get_by_text("Line 74.")).to_be_in_viewport()
    await prompt_page.answer.hover()
    await prompt_page.page.mouse.wheel(0, -600)
    await expect(prompt_page.answer.get_by_text("Line 74.")).not_to_be_in_viewport()
    latest = prompt_page.page.get_by_role("button", name="Latest")
    await expect(latest).to_be_visible()
    await latest.click()
    await expect(prompt_page.answer.get_by_text("Line 74.")).to_be_in_viewport()
    await expect(latest).to_be_hidden()
    stalled.release()
    await expect(prompt_page.answer.get_by_text("Line 79.")).to_be_in_viewport()
    await prompt_page.shows("Completed")
