"""What a process takes of the machine's memory, as Linux counts it."""

from __future__ import annotations

import re
from pathlib import Path

MIB = 1 << 20


class MemoryPeak:
    """The most that a process has had in memory, beyond what it had when this was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._had = self._peak()

    @property
    def grown_bytes(self) -> int:
        return self._peak() - self._had

    def _peak(self) -> int:
        status = Path(f"/proc/{self._pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024
