"""How long one commit takes on this disk: the price of durability, to be read beside every figure that contains one."""

from __future__ import annotations

import sqlite3
import statistics
import time
from pathlib import Path

_COMMITS = 100


def commit_milliseconds(folder: Path) -> float:
    """The median of one small SQLite commit (WAL, ``synchronous=FULL``) in this folder, in milliseconds."""
    connection = sqlite3.connect(folder / "commit-time.db", isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE IF NOT EXISTS line (words TEXT)")
        times = []
        for _ in range(_COMMITS):
            begun = time.perf_counter()
            connection.execute("INSERT INTO line VALUES ('as many words as a small job has, more or less')")
            times.append(time.perf_counter() - begun)
        return statistics.median(times) * 1000
    finally:
        connection.close()
