"""``/v1/images/generations`` and ``/v1/images/edits`` (wire contract 1.7, 1.9).

A reply may hold megabytes of base64. These are left out while it comes: what stands around them is kept and read.
"""

from __future__ import annotations

import re

from service.backend.protocols.reading import Ending, ReplyError, TooLargeError, counts_in, error_of_last, parsed
from service.job import Segment

_MOST_AROUND_BYTES = 1024 * 1024
_SHORTEST_BYTES = 256
"""What is shorter is kept, since it may be text."""
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-\\"
_ESCAPES_AND_BASE64 = re.compile(rb"\\u[0-9A-Fa-f]{4}|\\[^/u]|((?:[A-Za-z0-9+/=_-]++|\\/)++)", re.DOTALL)
"""Some programs escape the slash."""


class ImagesReader:
    """Counts what a reply says of its images, and does not keep them. A reply is complete that has at least one.

    Ollama swallows an error that comes once it has begun to draw: such a reply is empty.
    """

    has_begun = True
    has_opening = False
    numbers = 0

    def __init__(self) -> None:
        self._around = bytearray()
        self._last = b""
        """What the next bytes may go on with: of base64 no more than shows that it is."""
        self._excess: TooLargeError | None = None

    @property
    def gathered_bytes(self) -> int:
        return len(self._around) + len(self._last)

    def feed(self, data: bytes) -> list[Segment]:
        if self._excess is None:
            came = self._last + data
            end = len(came.rstrip(_ALPHABET))
            # An escape is not to be cut.
            end = max(end, came.rfind(b"\\", end))
            self._around += _ESCAPES_AND_BASE64.sub(_short_only, came[:end])
            self._last = _shortened(came[end:])
            if len(self._around) > _MOST_AROUND_BYTES:
                self._around.clear()
                self._excess = TooLargeError(f"the reply has more than {_MOST_AROUND_BYTES} bytes beside its images")
        return []

    def finish(self) -> Ending:
        if self._excess is not None:
            return Ending(is_complete=False, error=str(self._excess), is_too_large=True)
        try:
            return self._read(bytes(self._around) + self._last)
        except ReplyError as problem:
            return Ending(is_complete=False, error=error_of_last(problem), error_status=problem.status)

    def _read(self, document: bytes) -> Ending:
        reply = parsed(document)
        data = reply.get("data")
        return Ending(is_complete=bool(data) and isinstance(data, list), counts=counts_in(reply))


def _short_only(found: re.Match[bytes]) -> bytes:
    run = found.group(1)
    return b"" if run is not None and len(run) >= _SHORTEST_BYTES else found.group()


def _shortened(run: bytes) -> bytes:
    """A run at the end, no longer than shows that it is base64."""
    return run if len(run) <= 2 * _SHORTEST_BYTES else run[:_SHORTEST_BYTES] + run[-_SHORTEST_BYTES:]
