"""``python -m tests.bench [--against DIR] [NAME…]``: run the scenarios (none named: all), print one table.

Each figure is measured by turns with a baseline of the same run. Where two ratios stand beside each other, the first is
against aiohttp as it comes, the second against the same on uvloop, on which the service runs. The exit status is 1 when
a figure is not what is wanted of it.

With ``--against DIR`` the service of another checkout (a working copy of the commit before a change, say) runs beside
this one's and is measured by turns with it. Below each figure stands the same once more, against the other checkout's,
with the ratio of the two. Only some scenarios can do that (those whose module sets BY_TURNS); none named: all of these.

Everything happens in a temporary folder (choose its disk with TMPDIR) and on the loopback. To add a scenario, add a
module to ``tests/bench/scenarios``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import pkgutil
import platform
import resource
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import cast

from tests.bench import scenarios
from tests.bench.commit_time import commit_milliseconds
from tests.bench.load import LoadError
from tests.bench.measuring import Bench
from tests.bench.table import Figure, Row, markdown

Measure = Callable[[Bench], Awaitable[list[Figure]]]

_LIMIT_SECONDS = 1_200.0
"""For one scenario; what takes longer has got stuck."""


async def main(arguments: list[str]) -> int:
    """Run and report; the exit status."""
    known = {
        module.name: importlib.import_module(f"{scenarios.__name__}.{module.name}")
        for module in pkgutil.iter_modules(scenarios.__path__)
    }
    names, other = _read_arguments(arguments, known)
    if other is not None:
        known = {name: module for name, module in known.items() if getattr(module, "BY_TURNS", False)}
    if unknown := ", ".join(sorted(set(names) - set(known))):
        by_turns = "" if other is None else " that takes turns with another checkout"
        print(f"no such scenario{by_turns}: {unknown}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    _allow_many_files()
    this = asyncio.current_task()
    assert this is not None
    # A stop from outside goes through every "finally" too: no process is left behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        rows, failed = await _run({name: known[name] for name in names or known}, Bench(Path(folder), other))
    print(markdown(rows))
    print(
        f"\n{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )
    for name in failed:
        print(f"NOT MEASURED: {name}, see above")
    return 0 if not failed and all(row.figure.is_met is not False for row in rows) else 1


async def _run(chosen: Mapping[str, ModuleType], bench: Bench) -> tuple[list[Row], list[str]]:
    """The figures of all, and the names of those that could not be measured."""
    rows: list[Row] = []
    failed: list[str] = []
    for name, module in chosen.items():
        print(_named(name, module), file=sys.stderr, flush=True)
        begun = time.monotonic()
        commit_ms = [commit_milliseconds(bench.folder)]
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                figures = await cast(Measure, module.measure)(bench)
            # The disk may be somebody else's, too: what a commit takes now is not what it took an hour ago.
            commit_ms.append(commit_milliseconds(bench.folder))
            rows += [Row(figure, max(commit_ms)) for figure in figures]
        except (LoadError, AssertionError, TimeoutError, OSError):
            traceback.print_exc()
            failed.append(name)
        print(f"    {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return rows, failed


def _read_arguments(arguments: list[str], known: dict[str, ModuleType]) -> tuple[list[str], Path | None]:
    """The names, and the other checkout."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=(__doc__ or "").partition("\n\n")[2],
        epilog="scenarios:\n" + "\n".join(f"  {_named(name, module)}" for name, module in known.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--against", metavar="DIR", type=_checkout, help="another checkout, to take turns with")
    parser.add_argument("names", metavar="NAME", nargs="*", help="a scenario")
    given = parser.parse_args(arguments)
    return given.names, given.against


def _checkout(folder: str) -> Path:
    path = Path(folder).resolve()
    if not (path / "service" / "__main__.py").is_file():
        raise argparse.ArgumentTypeError(f"no service in {folder}")
    return path


def _named(name: str, module: ModuleType) -> str:
    return f"{name}: {(module.__doc__ or '').splitlines()[0]}"


def _allow_many_files() -> None:
    """As many open files as may be had without being root; the processes that are started inherit that."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("stopped before the end")
