"""What the kernel says of a process."""

from __future__ import annotations

import os
from pathlib import Path

MIB = 1 << 20


def resident_bytes(pid: int) -> int:
    """The memory that the process has at this moment."""
    return _status(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most memory that the process has had."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Measure the peak from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")


def processor_seconds(pid: int) -> float:
    """What the process has computed so far, in all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


class MemoryPeak:
    """The most that a process has had in memory, beyond what it had when this was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        forget_peak(pid)
        self._had = peak_bytes(pid)

    @property
    def grown_bytes(self) -> int:
        return peak_bytes(self._pid) - self._had
