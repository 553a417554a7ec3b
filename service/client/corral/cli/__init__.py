"""The command line: ``corral``, ``python -m corral`` and ``python -m service``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; without one its help is printed. The exit status."""
    return _run("corral", arguments, serves=False)


def main_of_service(arguments: Sequence[str] | None = None) -> int:
    """The same commands; without one the service is started."""
    return _run("python -m service", arguments, serves=True)


def _run(name: str, arguments: Sequence[str] | None, *, serves: bool) -> int:
    from corral.cli.program import run

    return run(name, sys.argv[1:] if arguments is None else arguments, serves=serves)
