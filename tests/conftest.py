"""What every test may use."""

from __future__ import annotations

import gc
import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from tests.support.checkout import search_path

pytest_plugins = ("tests.support.databases", "tests.support.store_jobs")

SETTINGS = (
    "CORRAL_",
    "OLLAMA_",
    "DEMO_",
    "NOTIFY_SOCKET",
    "WATCHDOG_",
    "DATABASE_URL",
    "SECRET_KEY",
    "ACCESS_TOKEN_",
    "LOG_LEVEL",
)


# A property does not fail because the machine is slow.
settings.register_profile("at any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("at any speed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the tests that need minutes, in place of all others")
    parser.addoption(
        "--rounds", type=int, default=100, help="how often the long durability test kills the service (100)"
    )
    parser.addoption(
        "--fuzz-minutes",
        type=float,
        default=60,
        help="how long the long lane sends each kind of garbage by chance (60)",
    )
    parser.addoption("--clients", action="store_true", help="install and try further client libraries, too")


def pytest_configure(config: pytest.Config) -> None:
    # The tests, and the services that they start anywhere, run the checkout's code, also where a copy is installed,
    # and nothing that the developer has configured for a service of their own.
    os.environ["PYTHONPATH"] = search_path()
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that is marked ``long`` runs in the long lane, and only there."""
    is_long = bool(config.getoption("--long"))
    others = [item for item in items if (item.get_closest_marker("long") is not None) != is_long]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


def pytest_collection_finish() -> None:
    # Whatever is there now stays to the end: the collector of cycles need not look at it again and again.
    gc.collect()
    gc.freeze()


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often the long durability test is to kill the service."""
    value: int = request.config.getoption("--rounds")
    return value


@pytest.fixture
def fuzz_minutes(request: pytest.FixtureRequest) -> float:
    """How long requests by chance are to be sent."""
    value: float = request.config.getoption("--fuzz-minutes")
    return value


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The Chromium that ``python -m tests`` found; without one the test is skipped, or fails where CI=true."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Chromium: run python -m tests")
    return path
