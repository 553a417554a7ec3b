"""``python -m tests [--quick | --long] [pytest's arguments]``: the test command, in three lanes.

- without either: the suite. Formatter, linter, types, import contracts and pytest; all run and must pass.
- ``--quick``: pytest alone, for one test in a hurry.
- ``--long``: what needs minutes, and nothing else; it ends by itself.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.checkout import ROOT, search_path
from tests.support.outside_programs import CHROMIUM, PROXIES, SHELLS, find_or_install

SCRIPTS = Path(sysconfig.get_path("scripts"))
"""Where this interpreter's tools are, also when its environment is not activated."""

CHECKS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy", "--strict", "service", "tests"],
    # Without the path the client library that is installed would be judged.
    "imports": ["env", "PYTHONPATH=service/client", "lint-imports", "--no-logo"],
}
BESIDE = ("types", "imports")
"""Run while pytest does, as they take long; what they said follows what pytest said."""

WORKERS = 4
"""Processes among which pytest's tests are shared out: twice as many as cores, as most tests wait half of the time."""


def main(arguments: list[str]) -> int:
    """Run a lane and say what failed; the exit status is 1 when anything did."""
    chosen, pytest_arguments = _parser().parse_known_args(arguments)
    # The tests start processes by the hundred, none of which is to compile the code anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PATH"] = os.pathsep.join(filter(None, (str(SCRIPTS), os.environ.get("PATH"))))
    os.environ["PYTHONPATH"] = search_path()
    if chosen.quick:
        failed = _missing_programs(_named_programs(pytest_arguments))
        failed += _pytest(pytest_arguments)
    elif chosen.long:
        failed = _pytest([*_on_all_cores(), "--long", *pytest_arguments])
    else:
        failed = _suite(pytest_arguments)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall passed", flush=True)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests",
        description="Without an option: the suite, which is formatter, linter, types, import contracts and pytest.",
        epilog="All other arguments are passed on to pytest.",
        allow_abbrev=False,
    )
    lanes = parser.add_mutually_exclusive_group()
    lanes.add_argument("--quick", action="store_true", help="pytest alone: one test without the rest")
    lanes.add_argument("--long", action="store_true", help="what needs minutes, and nothing else")
    return parser


def _suite(pytest_arguments: list[str]) -> list[str]:
    """The names of what failed."""
    failed = [name for name in CHECKS if name not in BESIDE and not _passes(name, CHECKS[name])]
    failed += _missing_programs((CHROMIUM, *PROXIES, *SHELLS))
    with _begun_beside() as begun:
        failed += _pytest([*_on_all_cores(), *pytest_arguments])
        failed += [name for name, process in begun.items() if not _ends_well(name, process)]
    return failed


def _on_all_cores() -> list[str]:
    return ["--numprocesses", str(WORKERS), "--dist", "worksteal"]


def _named_programs(pytest_arguments: list[str]) -> Sequence[str]:
    """The programs that the tests use which are named."""
    named = " ".join(pytest_arguments)
    return [
        *([CHROMIUM] if "browser" in named else []),
        *(PROXIES if "proxies" in named else ()),
        *(SHELLS if "completion" in named else ()),
    ]


def _missing_programs(names: Sequence[str]) -> list[str]:
    """Find or install these programs. Without one of them its tests are skipped, or where CI=true that is a failure."""
    found = find_or_install(names)
    if CHROMIUM in found:
        os.environ["CHROMIUM"] = found[CHROMIUM]
    missing = [name for name in names if name not in found]
    if missing:
        print(f"\nCould not be found or installed, so that their tests cannot run: {', '.join(missing)}", flush=True)
    return missing if os.environ.get("CI") == "true" else []


def _pytest(arguments: list[str]) -> list[str]:
    return [] if _passes("pytest", ["pytest", *arguments]) else ["pytest"]


def _passes(name: str, command: list[str]) -> bool:
    _announce(name, command)
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


@contextmanager
def _begun_beside() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """These checks, running, with what they say kept; none is left behind when the block is left early."""
    with ExitStack() as ends:
        begun: dict[str, subprocess.Popen[str]] = {}
        for name in BESIDE:
            process = subprocess.Popen(
                CHECKS[name],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            begun[name] = ends.enter_context(process)
            ends.callback(process.kill)
        yield begun


def _ends_well(name: str, process: subprocess.Popen[str]) -> bool:
    """Wait for the end of a check that was begun, and show what it said."""
    said, _ = process.communicate()
    _announce(name, CHECKS[name])
    print(said, end="", flush=True)
    return process.returncode == 0


def _announce(name: str, command: list[str]) -> None:
    print(f"\n== {name}: {shlex.join(command)}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
