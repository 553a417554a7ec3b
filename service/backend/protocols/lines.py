"""Lines, out of bytes that arrive in any pieces."""

from __future__ import annotations

LIMIT_BYTES = 64 * 1024 * 1024
"""The longest line that is waited for. Ollama's own limit for a line is 8 MB."""


class LineSplitter:
    """Gathers the pieces of a line until its end comes. Each byte is copied a bounded number of times."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.is_too_long = False
        """A line is longer than the limit; it and everything behind it is not given out."""
        self._begun = bytearray()

    @property
    def gathered_bytes(self) -> int:
        """What has come of a line whose end has not."""
        return len(self._begun)

    def split(self, data: bytes) -> list[bytes]:
        """The lines that end in these bytes, without their ends (``\\n`` or ``\\r\\n``)."""
        if self.is_too_long:
            return []
        if b"\r" in data:
            # Within JSON a carriage return is always escaped, so a bare one is part of a line end.
            data = data.replace(b"\r", b"")
        lines = data.split(b"\n")
        rest = lines.pop()
        if not rest and not self._begun and len(data) <= self.limit_bytes:
            return lines
        size = len(data) + len(self._begun)
        if self._begun and lines:
            self._begun += lines[0]
            lines[0] = bytes(self._begun)
            self._begun = bytearray()
        if rest:
            self._begun += rest
        return lines if size <= self.limit_bytes else self._bounded(lines)

    def rest(self) -> bytes:
        """What came after the last line end."""
        return bytes(self._begun)

    def _bounded(self, lines: list[bytes]) -> list[bytes]:
        for index, line in enumerate(lines):
            if len(line) > self.limit_bytes:
                self.is_too_long = True
                self._begun = bytearray()
                return lines[:index]
        if len(self._begun) > self.limit_bytes:
            self.is_too_long = True
            self._begun = bytearray()
        return lines
