"""Programs that tests use and no Python package brings: a Chromium, proxies and shells. Each is looked for; what is
missing is installed, a Chromium by Playwright, and all that is missing then from Debian's packages, where we are root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = "chromium"
PROXIES = ("nginx", "haproxy", "caddy")
SHELLS = ("zsh", "fish")
"""The names of the programs, and of their packages."""

_CHROMIUMS = (CHROMIUM, "chromium-browser", "google-chrome", "google-chrome-stable")
_INSTALL_SECONDS = 600
_FOR_ROOT = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where servers are, and who is not root does not look."""
_POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian's packages ask it whether they may start what they have installed."""


def program_path(name: str) -> str | None:
    """Where a proxy or a shell is; None where it is not installed."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_FOR_ROOT)))


def find_or_install(names: Iterable[str]) -> dict[str, str]:
    """The paths of these programs. One that is not among them could not be installed either."""
    wanted = list(names)
    if CHROMIUM in wanted and _found(CHROMIUM) is None:
        _runs([sys.executable, "-m", "playwright", "install", "chromium"])
    missing = [name for name in wanted if _found(name) is None]
    if missing:
        _install_packages(missing)
    return {name: path for name in wanted if (path := _found(name)) is not None}


def _found(name: str) -> str | None:
    return _chromium_path() if name == CHROMIUM else program_path(name)


def _chromium_path() -> str | None:
    given = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, (given, *_CHROMIUMS) if given else _CHROMIUMS)), None) or _playwrights()


def _playwrights() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def _install_packages(names: list[str]) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None or not _runs(["apt-get", "update"]):
        return
    install = ["apt-get", "install", "--yes", "--no-install-recommends"]
    with _nothing_started():
        if not _runs([*install, *names]) and len(names) > 1:
            # Where one of them is unknown, none is installed.
            for name in names:
                _runs([*install, name])


@contextmanager
def _nothing_started() -> Iterator[None]:
    """Packages that are installed meanwhile start no service. A policy that is there already stays as it is."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _runs(command: list[str]) -> bool:
    print(f"\n== install: {' '.join(command)}", flush=True)
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        finished = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, timeout=_INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as failure:
        print(failure, flush=True)
        return False
    return finished.returncode == 0
