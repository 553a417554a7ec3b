"""``python -m tests.bench [names…]``: run the scenarios (none named: all), print one table. 1 when a figure is missed.

Everything happens in a temporary folder (choose its disk with TMPDIR) and on the loopback. To add a scenario, add a
module to ``tests/bench/scenarios``.
"""

from __future__ import annotations

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
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from tests.bench import scenarios
from tests.bench.commit_time import commit_milliseconds
from tests.bench.load import LoadError
from tests.bench.measuring import Bench
from tests.bench.table import Figure, Row, markdown

Measure = Callable[[Bench], Awaitable[list[Figure]]]

_LIMIT_SECONDS = 600.0
"""For one scenario; what takes longer has got stuck."""


async def main(names: list[str]) -> int:
    """Run and report; the exit status."""
    known = [module.name for module in pkgutil.iter_modules(scenarios.__path__)]
    if unknown := set(names) - set(known):
        print(f"no such scenario: {', '.join(sorted(unknown))}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    _allow_many_files()
    this = asyncio.current_task()
    assert this is not None
    # A stop from outside goes through every "finally" too: no process is left behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    rows: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name in names or known:
            module = importlib.import_module(f"{scenarios.__name__}.{name}")
            print(f"{name}: {(module.__doc__ or '').splitlines()[0]}", file=sys.stderr, flush=True)
            begun = time.monotonic()
            commit_ms = [commit_milliseconds(Path(folder))]
            try:
                async with asyncio.timeout(_LIMIT_SECONDS):
                    figures = await cast(Measure, module.measure)(Bench(Path(folder)))
                # The disk may be somebody else's, too: what a commit takes now is not what it took an hour ago.
                commit_ms.append(commit_milliseconds(Path(folder)))
                rows += [Row(figure, max(commit_ms)) for figure in figures]
            except (LoadError, AssertionError, TimeoutError, OSError):
                traceback.print_exc()
                failed.append(name)
            print(f"    {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    print(markdown(rows))
    print(
        f"\n{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )
    for name in failed:
        print(f"NOT MEASURED: {name}, see above")
    return 0 if not failed and all(row.figure.is_met is not False for row in rows) else 1


def _allow_many_files() -> None:
    """As many open files as may be had without being root; the processes that are started inherit that."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1:])))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("stopped before the end")
