"""The pages for everybody: on a phone, in the dark, by keyboard alone, with a screen reader; and safe by policy."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect

from service.simulated import Fault, FaultKind
from tests.browser.visiting import PromptPage, Stage, Visitor, visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

WIDE_ANSWER = (
    f"{'unbroken' * 30}\n\n| {' | '.join(f'column{number}' for number in range(12))} |\n|{'---|' * 12}\n"
    f"| {' | '.join('value' for _ in range(12))} |\n\n```\n{'code ' * 60}\n```\n\n`{'inline' * 30}`"
)
NAMELESS = re.compile(r"^ *- (?:button|link|textbox|combobox|searchbox|spinbutton|checkbox|region|navigation)(?! \")")

# Text of less contrast with what is behind it than WCAG's 4.5; what is disabled may be faint.
FAINT_TEXT = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const linear = (share) => (share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = color.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const backdrop = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const [r, g, b, opacity = 1] = numbers(getComputedStyle(each).backgroundColor);
      if (opacity > 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const text = texts.currentNode.data.trim();
    if (!text || !element.checkVisibility() || element.closest("noscript, option, :disabled")) continue;
    const shades = [light(numbers(getComputedStyle(element).color).slice(0, 3)), light(backdrop(element))];
    const contrast = Math.max(...shades) / Math.min(...shades);
    if (contrast < 4.5) faint.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return faint;
}"""


async def is_readable(page: Page) -> bool:
    """Whether nothing sticks out at the side and no text is too faint."""
    width, window = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= window
    assert await page.evaluate(FAINT_TEXT) == []
    return True


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 1280])
async def test_every_state_fits_and_has_contrast(browser: Browser, stage: Stage, width: int, scheme: str) -> None:
    viewport = {"width": width, "height": 740}
    stage.ollama.arm(
        Fault(kind=FaultKind.ERROR, prompt="hopeless", status=400, message=f"hopeless: {'reason' * 40}", times=1)
    )
    failed = await stage.submit(f"A hopeless {'case' * 60}")
    stalled = stage.stall("unfinished")
    async with visiting(browser, stage.url, viewport=viewport, color_scheme=scheme, has_touch=width < 700) as visitor:
        page = PromptPage(await visitor.open())
        assert await is_readable(page.page)
        await page.ask("An unfinished answer to all of it")
        await page.shows("Writing", "An unfinished answer")
        assert await is_readable(page.page)
        stalled.release()
        await page.prompt.fill(WIDE_ANSWER)
        await page.send.click()
        await page.shows("Completed")
        await expect(page.answer.get_by_role("table")).to_be_visible()
        assert await is_readable(page.page)
        await page.page.goto(f"{stage.url}/?job={failed}")
        await page.shows("Failed")
        assert await is_readable(page.page)
        await page.page.goto(f"{stage.url}/list")
        await expect(page.page.get_by_role("link", name="hopeless").first).to_be_visible()
        assert await is_readable(page.page)


async def test_the_colours_follow_the_scheme(browser: Browser, stage: Stage) -> None:
    backgrounds = {}
    for scheme in ("light", "dark"):
        async with visiting(browser, stage.url, color_scheme=scheme) as visitor:
            page = await visitor.open()
            shade = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            backgrounds[scheme] = sum(map(int, re.findall(r"\d+", shade)[:3]))
    assert backgrounds["dark"] < 150 < 600 < backgrounds["light"]


async def test_everything_can_be_done_by_keyboard_alone(stage: Stage, visitor: Visitor) -> None:
    stage.stall("by keyboard")
    page = PromptPage(await visitor.open())
    keyboard = page.page.keyboard
    await expect(page.prompt).to_be_focused()
    await keyboard.type("Asked by keyboard alone")
    await keyboard.press("Tab")
    await expect(page.model).to_be_focused()
    await keyboard.press("Tab")
    await keyboard.press("Shift+Tab")
    await keyboard.press("Shift+Tab")
    await keyboard.press("Control+Enter")
    await expect(page.heading).to_be_focused()
    await page.shows("Writing", "Asked by keyboard")
    await keyboard.press("Tab")
    await expect(page.button("Copy answer")).to_be_focused()
    await keyboard.press("Tab")
    await expect(page.button("Cancel")).to_be_focused()
    await keyboard.press("Enter")
    await page.shows("Cancelled")
    stage.ollama.faults.clear()
    await expect(page.heading).to_be_focused()
    await keyboard.press("Tab")
    await keyboard.press("Tab")
    await expect(page.button("Ask again")).to_be_focused()
    await keyboard.press("Enter")
    await page.shows("Completed", "Asked by keyboard alone")
    await expect(page.heading).to_be_focused()


async def test_the_keyboard_skips_to_the_content_and_walks_through_the_list(stage: Stage, visitor: Visitor) -> None:
    await stage.submit("Reached by keyboard")
    page = await visitor.open("/list?q=Reached+by+keyboard")
    await expect(page.locator("tbody").get_by_role("row")).to_have_count(1)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("searchbox", name="Text")).to_be_focused()
    link = page.get_by_role("link", name="Reached by keyboard")
    await link.focus()
    await page.keyboard.press("Enter")
    await PromptPage(page).shows("Completed", "Reached by keyboard")


async def test_a_screen_reader_finds_landmarks_names_and_what_has_changed(stage: Stage, visitor: Visitor) -> None:
    stalled = stage.stall("read aloud")
    page = PromptPage(await visitor.open())
    await page.ask("An answer to be read aloud")
    await expect(page.announcement).to_have_text("The answer is being written.")
    await expect(page.answer).to_have_attribute("aria-busy", "true")
    await expect(page.page.locator("body")).to_match_aria_snapshot(
        """
        - link "Skip to the content"
        - banner:
          - link "Corral"
          - navigation "Pages":
            - link "Prompt"
            - link "All prompts"
            - link "API documentation"
        - main:
          - heading "Send a prompt" [level=1]
          - form "New prompt":
            - textbox "Prompt"
          - region "An answer to be read aloud":
            - heading "An answer to be read aloud" [level=2]
            - region "Answer":
              - paragraph: An answer to
            - button "Copy answer"
            - button "Cancel"
          - status: The answer is being written.
          - complementary "Your recent prompts":
            - heading "Your recent prompts" [level=2]
            - list:
              - listitem:
                - link "An answer to be read aloud"
        """
    )
    stalled.release()
    await expect(page.announcement).to_have_text("The answer is complete.")
    await expect(page.answer).to_have_attribute("aria-busy", "false")
    await expect(page.page).to_have_title("✓ An answer to be read aloud – Corral")


@pytest.mark.parametrize("path", ["/", "/list"])
async def test_everything_that_can_be_used_has_a_name(stage: Stage, visitor: Visitor, path: str) -> None:
    await stage.submit("Something to list")
    page = await visitor.open(path)
    await expect(page.locator("#rows tr, #recent-empty").first).to_be_visible()
    snapshot = await page.locator("body").aria_snapshot()
    assert [line for line in snapshot.splitlines() if NAMELESS.match(line)] == []
    assert await page.locator("html").get_attribute("lang") == "en"
    await expect(page.get_by_role("heading", level=1)).to_have_count(1)


@pytest.mark.parametrize("path", ["/", "/list"])
async def test_pages_run_their_own_scripts_only_and_ask_nobody_else(stage: Stage, visitor: Visitor, path: str) -> None:
    asked: list[str] = []
    visitor.context.on("request", lambda request: asked.append(request.url))
    page = await visitor.open(path)
    await expect(page.get_by_role("main")).to_be_visible()
    assert {urlsplit(address).netloc for address in asked} == {urlsplit(stage.url).netloc}
    visitor.expects("Content Security Policy")
    was_run = await page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.wasRun = true";
          document.head.append(script);
          return Boolean(window.wasRun);
        }"""
    )
    assert not was_run


async def test_the_page_is_for_browsers_and_programs_get_what_ollama_says(stage: Stage) -> None:
    async with aiohttp.ClientSession(stage.url) as session:
        async with session.get("/", headers={"Accept": "text/html,application/xhtml+xml"}) as response:
            policy = response.headers["Content-Security-Policy"]
            assert "text/html" in response.headers["Content-Type"]
        async with session.get("/", headers={"Accept": "*/*"}) as response:
            assert await response.text() == "Ollama is running"
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
