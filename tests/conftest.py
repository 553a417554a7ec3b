"""What every test may use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest_plugins = ("tests.support.databases", "tests.support.store_jobs")

ROOT = Path(__file__).parent.parent
SETTINGS = ("CORRAL_", "OLLAMA_", "DEMO_", "NOTIFY_SOCKET", "WATCHDOG_", "DATABASE_URL", "SECRET_KEY", "ACCESS_TOKEN_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=20, help="how often the durability test kills the service (20)")
    parser.addoption("--clients", action="store_true", help="install and try further client libraries, too")


def pytest_configure(config: pytest.Config) -> None:
    # The tests, and the services that they start anywhere, run the checkout's code, also where a copy is installed,
    # and nothing that the developer has configured for a service of their own.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often a durability test is to kill the service."""
    value: int = request.config.getoption("--rounds")
    return value


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The Chromium that ``python -m tests`` found; without one the test is skipped, or fails where CI=true."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Chromium: run python -m tests")
    return path
