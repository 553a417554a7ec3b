"""What the users of the owner's documents do: a program that polls, a page, and lines for curl."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import pytest

from service.simulated import FaultKind
from tests.support.checkout import ROOT
from tests.support.client_service import ADMIN_KEY, arm, ran, service_for_clients

USER_KEY = "sk-user-for-the-client-tests"
FOLDER = ROOT / "tests" / "clients" / "scripts"


@pytest.mark.parametrize("script", ["polling_client", "prompt_page"])
async def test_a_program_of_the_documents_works(script: str) -> None:
    async with service_for_clients() as service:
        arm(service, FaultKind.HANG_UP, "/api/generate", after_tokens=5, prompt="break off")
        await ran(sys.executable, "-m", f"tests.clients.scripts.{script}", service.url, folder=ROOT)


async def test_the_lines_for_curl_work() -> None:
    if shutil.which("curl") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no curl")
    options: dict[str, Any] = {"auth.required": True, "auth.demo_user_key": USER_KEY}
    async with service_for_clients(options) as service:
        await ran("sh", str(FOLDER / "gateway_curl.sh"), service.url, ADMIN_KEY, USER_KEY, folder=ROOT)
