"""Where a stream may be cut so that its reader can still read it: after a line, or after an event."""

from __future__ import annotations

_LINE = (b"\n",)
_EVENT = (b"\n\n", b"\r\n\r\n")


class Boundaries:
    """Holds back the beginning of a line (or event) until the rest has come. Ollama sends whole ones."""

    __slots__ = ("_begun", "_ends")

    def __init__(self, *, is_event_stream: bool) -> None:
        self._ends = _EVENT if is_event_stream else _LINE
        self._begun = bytearray()

    def whole(self, data: bytes) -> bytes:
        """What has become whole with these bytes."""
        if data.endswith(self._ends):
            if not self._begun:
                return data
            data = bytes(self._begun) + data
            self._begun.clear()
            return data
        # An event's end may be cut in two: its first half was kept at the last call.
        start = max(0, len(self._begun) - len(self._ends[-1]))
        self._begun += data
        end = max(self._end_behind(end, start) for end in self._ends)
        whole = bytes(self._begun[:end])
        del self._begun[:end]
        return whole

    def rest(self) -> bytes:
        """What came after the last boundary."""
        return bytes(self._begun)

    def _end_behind(self, end: bytes, start: int) -> int:
        found = self._begun.rfind(end, start)
        return found + len(end) if found >= 0 else 0
