"""What the pages show of a prompt whose contents were deleted."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from service.api.context import CLOCK
from tests.browser.visiting import PromptPage, visiting
from tests.support.access import headers_of, service_with_keys

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_prompt_of_which_only_the_row_is_left_is_said_to_be_deleted(browser: Browser) -> None:
    async with service_with_keys(required=False, seats=1) as service:
        user = await headers_of(service, retention_days=1)
        ids = []
        for is_cancelled in (True, False):
            body = {"prompt": "What was I?", "model": "llama3.2"}
            _, job = await service.call("POST", "/api/v1/prompt", body, headers=user)
            ids.append(job["id"])
            if is_cancelled:
                await service.call("DELETE", f"/api/v1/prompt/{job['id']}", headers=user)
        await service.until(ids[1], "completed")
        async with visiting(browser, service.url) as visitor:
            visitor.expects("status of 410")
            rows = (await visitor.open("/list")).locator("tbody").get_by_role("row")
            await expect(rows.nth(0)).to_contain_text("What was I?")
            # The row that is shown loses its text, too.
            await service.jobs.retention.tend(service.app[CLOCK].now_ms() + 90_000_000)
            await expect(rows.nth(0)).to_contain_text("(deleted)")
            for job_id in ids:
                shown = PromptPage(await visitor.open(f"/?job={job_id}"))
                await expect(shown.heading).to_have_text("Deleted")
                await expect(shown.problem).to_have_text("What was asked and answered here was deleted.")
