"""A Chromium for the browser tests: the system's; else Playwright's own; else, when root on Debian, the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL_SECONDS = 600


def find_or_install_chromium() -> str | None:
    """The path of a Chromium, installed when there is none yet; None when that did not work either."""
    return _found() or _installed_by_playwright() or _installed_by_apt()


def _found() -> str | None:
    given = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, (given, *NAMES) if given else NAMES)), None) or _playwrights()


def _playwrights() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def _installed_by_playwright() -> str | None:
    if _runs([sys.executable, "-m", "playwright", "install", "chromium"]):
        return _playwrights()
    return None


def _installed_by_apt() -> str | None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    if not _runs(["apt-get", "update"]):
        return None
    _runs(["apt-get", "install", "--yes", "--no-install-recommends", "chromium"])
    return _found()


def _runs(command: list[str]) -> bool:
    print(f"\n== chromium: {' '.join(command)}", flush=True)
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        finished = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, timeout=INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as failure:
        print(failure, flush=True)
        return False
    return finished.returncode == 0
