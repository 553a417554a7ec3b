"""Server-sent events, as far as the replies of ``/v1`` use them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from service.backend.protocols.reading import StreamReader, UnreadableError, parsed
from service.job import Segment

_OTHER_FIELDS = (b"event:", b":", b"id:", b"retry:")


class SseReader(StreamReader):
    """Gathers the data lines of an event and reads them, as one JSON object, when the event ends."""

    def __init__(self) -> None:
        super().__init__()
        self._data: list[bytes] = []

    def _take(self, line: bytes, segments: list[Segment]) -> None:
        if not line:
            if self._data:
                self._take_data(segments)
        elif line.startswith(b"data:"):
            self._data.append(line[5:])
        elif not line.startswith(_OTHER_FIELDS):
            parsed(line)
            raise UnreadableError(line)

    def _take_rest(self, rest: bytes, segments: list[Segment]) -> None:
        # The last event is read although its blank line is missing: what it says is whole or unreadable.
        if rest.startswith(b"data:"):
            self._data.append(rest[5:])
        if self._data:
            self._take_data(segments)

    def _take_data(self, segments: list[Segment]) -> None:
        data = b"\n".join(self._data) if len(self._data) > 1 else self._data[0]
        self._data.clear()
        if data.strip() == b"[DONE]":
            self._on_done()
            return
        output: list[Segment] = []
        self._read(parsed(data), output)
        if output:
            self._last_output.add(output)
            segments += output

    def _on_done(self) -> None:
        """The line ``data: [DONE]``, which only two of the formats know."""

    @abstractmethod
    def _read(self, event: dict[str, Any], segments: list[Segment]) -> None:
        """Look at an event without ``error``. May raise ReplyError."""
