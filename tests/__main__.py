"""``python -m tests [pytest arguments]``: formatter, linter, types, import contracts, pytest; all run and must pass."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.support.chromium import find_or_install_chromium

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
"""Where this interpreter's tools are, also when its environment is not activated."""

CHECKS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy", "--strict", "service", "tests"],
    "imports": ["lint-imports", "--no-logo"],
}


def main(pytest_arguments: list[str]) -> int:
    """Run everything and say which failed; the exit status is 1 when anything did."""
    failed = [name for name, command in CHECKS.items() if not passes(name, command)]
    is_ci = os.environ.get("CI") == "true"
    chromium = find_or_install_chromium()
    if chromium is None:
        print("\nNo Chromium could be found or installed: the browser tests cannot run.", flush=True)
        if is_ci:
            failed.append("browser")
    else:
        os.environ["CHROMIUM"] = chromium
    if not passes("pytest", ["pytest", *pytest_arguments]):
        failed.append("pytest")
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall passed", flush=True)
    return 1 if failed else 0


def passes(name: str, command: list[str]) -> bool:
    print(f"\n== {name}: {shlex.join(command)}", flush=True)
    return subprocess.run([SCRIPTS / command[0], *command[1:]], cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
