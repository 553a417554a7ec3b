"""What a process takes of the machine's memory, as Linux counts it."""

from __future__ import annotations

import re
from pathlib import Path

MIB = 1 << 20


def resident_bytes(pid: int) -> int:
    """What it has in memory now."""
    return _status(pid, "VmRSS")


def forget_peak(pid: int) -> None:
    """Let the peak begin anew, at what the process has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """The most that it had in memory since then."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
