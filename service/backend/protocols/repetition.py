"""Whether Ollama has ended a stream because the model wrote the same token again and again (wire contract 2.1 a).

Such a stream ends properly, without its marker and without an error: only its last events tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from service.job import TEXT, THINKING, Segment

_EQUAL = 31
"""So many events with one token has Ollama sent when it ends the stream: the first, and 30 that repeat it."""
_EQUAL_FROM_THE_START = 30
"""Where they are blank and all of the output, the first repeats what Ollama begins with, which is ""."""
_SEVERAL = Segment("several", "")
"""In place of the output of an event that has more than one segment."""


class LastOutput:
    """The output of a stream's last events, each by itself: elsewhere neighbours are joined.

    It is looked at once, when the stream has ended, so that an event costs no more than its place here.
    """

    __slots__ = ("_last", "add")

    def __init__(self) -> None:
        self._last: deque[list[Segment] | tuple[str, ...]] = deque(maxlen=_EQUAL)
        """Of each event its segments, or the texts of several events that came together."""
        self.add = self._last.append
        """Takes the segments of an event, if it has any. The deque's own, since a method would take twice as long."""

    def add_texts(self, texts: list[str]) -> None:
        """Take the texts of events that have nothing else. They may be empty, but not all of them."""
        last = texts[-_EQUAL:]
        self._last.append(tuple(last if all(last) else [text for text in texts if text][-_EQUAL:]))

    @property
    def is_repeated(self) -> bool:
        """Whether it is what Ollama takes for a model that repeats itself."""
        last = list(islice(self._backwards(), _EQUAL))
        different = {(kind, data.strip()) for kind, data in last}
        if len(different) != 1:
            return False
        [(kind, text)] = different
        return kind in (TEXT, THINKING) and len(last) >= (_EQUAL if text else _EQUAL_FROM_THE_START)

    def _backwards(self) -> Iterator[Segment]:
        for output in reversed(self._last):
            if isinstance(output, tuple):
                yield from (Segment(TEXT, text) for text in reversed(output))
            else:
                yield output[0] if len(output) == 1 else _SEVERAL
