"""The pages when the service, the websocket or the network is gone for a while: they say so, go on and lose nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from playwright.async_api import Browser, WebSocketRoute, expect

from service.simulated import Fault, FaultKind, SimulatedServer
from tests.browser.visiting import ECHO, REFUSED_CONNECTION, PromptPage, Stage, Visitor, staged, visiting
from tests.support.processes import running_service

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOST = "Live connection lost."


async def test_a_service_that_is_killed_and_comes_back_finishes_what_the_open_pages_show(
    browser: Browser, tmp_path: Path
) -> None:
    async with SimulatedServer(ECHO) as ollama:
        before = ollama.arm(Fault(kind=FaultKind.STALL, prompt="killed", after_tokens=3, times=1))
        after = ollama.arm(Fault(kind=FaultKind.STALL, prompt="killed", after_tokens=2, skip=1))
        async with (
            running_service(tmp_path, OLLAMA_URL=ollama.url) as service,
            visiting(browser, service.url) as visitor,
        ):
            visitor.expects(REFUSED_CONNECTION)
            rows = (await visitor.open("/list")).get_by_role("row")
            page = PromptPage(await visitor.open())
            await page.ask("This one is killed in the middle")
            await page.shows("Writing", "This one is")
            service.process.send(signal.SIGKILL)
            await service.process.ended()
            await expect(page.notice).to_contain_text(LOST)
            await expect(page.status).to_have_text("Writing")
            before.remove()

            async with running_service(tmp_path, OLLAMA_URL=ollama.url, CORRAL_SERVER__PORT=str(service.port)):
                await expect(page.detail).to_contain_text("attempt 2")
                await expect(page.notice).to_be_hidden()
                await page.shows("Writing", "This one")
                after.release()
                await page.shows("Completed", "This one is killed in the middle")
                await page.ask("And the next one")
                await page.shows("Completed", "And the next one")
                await rows.page.bring_to_front()
                await expect(rows.page.locator("#connection")).to_be_hidden()
                await expect(rows).to_have_count(3)
                await expect(rows.nth(1)).to_contain_text("And the next one")
                await expect(rows.nth(2)).to_contain_text("Completed")


async def test_without_a_network_the_page_says_so_and_goes_on_where_it_was(
    stage: Stage, visitor: Visitor, prompt_page: PromptPage
) -> None:
    visitor.expects(REFUSED_CONNECTION)
    stalled = stage.stall("network")
    await prompt_page.ask("Without a network the rest arrives later")
    await prompt_page.shows("Writing", "Without a network")
    await visitor.context.set_offline(True)
    await expect(prompt_page.notice).to_contain_text(LOST)
    answers = stage.ollama.observations.answers
    stalled.release()
    await stage.ollama.observations.until(lambda seen: seen.answers == answers + 1)
    await prompt_page.shows("Writing", "Without a network")
    await visitor.context.set_offline(False)
    await prompt_page.shows("Completed", "Without a network the rest arrives later")
    await expect(prompt_page.notice).to_be_hidden()


async def test_a_resumed_answer_is_neither_repeated_nor_torn(
    stage: Stage, visitor: Visitor, prompt_page: PromptPage
) -> None:
    visitor.expects(REFUSED_CONNECTION)
    stage.stall("resumed", after_tokens=6)
    await prompt_page.ask("This answer is resumed after six words and not before")
    await prompt_page.shows("Writing", "This answer is resumed after six")
    asked: list[str] = []
    prompt_page.page.on("websocket", lambda socket: socket.on("framesent", lambda sent: asked.append(str(sent))))
    await visitor.context.set_offline(True)
    await expect(prompt_page.notice).to_contain_text(LOST)
    await visitor.context.set_offline(False)
    await expect(prompt_page.notice).to_be_hidden()
    await prompt_page.shows("Writing", "This answer is resumed after six")
    stage.ollama.faults.clear()
    await prompt_page.shows("Completed", "This answer is resumed after six words and not before")
    assert any('"from":"1.32"' in message for message in asked)


async def test_where_no_websocket_gets_through_the_page_asks_for_the_answer(
    stage: Stage, visitor: Visitor, prompt_page: PromptPage
) -> None:
    async def refuse(socket: WebSocketRoute) -> None:
        await socket.close()

    await visitor.context.route_web_socket("**/api/v1/ws", refuse)
    await prompt_page.page.reload()
    stalled = stage.stall("polls")
    await prompt_page.ask("Somebody polls for this")
    await expect(prompt_page.notice).to_contain_text(LOST)
    await prompt_page.shows("Writing")
    stalled.release()
    await prompt_page.shows("Completed", "Somebody polls for this")


async def test_a_prompt_that_cannot_be_sent_is_kept_and_sent_once(
    stage: Stage, visitor: Visitor, prompt_page: PromptPage
) -> None:
    visitor.expects(REFUSED_CONNECTION)
    await visitor.context.set_offline(True)
    await prompt_page.prompt.fill("Sent later")
    await prompt_page.send.click()
    await expect(prompt_page.page.get_by_role("alert")).to_have_text("The service cannot be reached.")
    await expect(prompt_page.prompt).to_have_value("Sent later")
    await visitor.context.set_offline(False)
    await prompt_page.send.click()
    await prompt_page.shows("Completed", "Sent later")
    assert stage.ollama.observations.prompts.count("Sent later") == 1


async def test_a_job_that_no_model_server_takes_says_so_and_goes_on_when_one_answers(
    browser: Browser, tmp_path: Path
) -> None:
    async with staged(tmp_path, CORRAL_HEALTH__PROBE_INTERVAL_SECONDS="0.2") as stage:
        await stage.ollama.refuse_connections()
        async with visiting(browser, stage.url) as visitor:
            page = PromptPage(await visitor.open())
            await page.ask("Held and then answered")
            await expect(page.detail).to_contain_text("held until a model server answers")
            await stage.ollama.accept_connections()
            await page.shows("Completed", "Held and then answered")
