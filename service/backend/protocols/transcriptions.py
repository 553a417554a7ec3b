"""``/v1/audio/transcriptions`` (wire contract 1.7): JSON, or the words alone where the request asked for that.

Ollama sends the head of its reply with the first token, and then calls words and JSON alike ``application/x-ndjson``.
Only a reply without a single token is called what it is. An error that comes once it has begun is swallowed, and such a
reply is empty.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from service.backend.protocols.reading import Ending, UnreadableError, counts_in, parsed
from service.backend.protocols.whole import WholeBody, WholeReader
from service.job import TEXT, Segment


class TextReader:
    """Gathers a reply that may be words alone, and reads it at its end."""

    has_begun = True
    has_opening = False
    numbers = 0
    gathered_bytes = 0

    def __init__(self, media_type: str) -> None:
        self._body = WholeBody()
        self._is_plain = media_type == "text/plain"

    def feed(self, data: bytes) -> list[Segment]:
        self._body.add(data)
        return []

    def finish(self) -> Ending:
        return self._body.read(self._read)

    def _read(self, body: bytes) -> Ending:
        if body.lstrip()[:2] == b'{"':
            try:
                return _read_transcription(parsed(body))
            except UnreadableError:
                return Ending(is_complete=False)
        text = body.decode(errors="replace")
        return Ending(is_complete=bool(text) or self._is_plain, segments=(Segment(TEXT, text),) if text else ())


def _read_transcription(reply: dict[str, Any]) -> Ending:
    text = reply.get("text")
    if not isinstance(text, str):
        return Ending(is_complete=False)
    return Ending(is_complete=True, counts=counts_in(reply), segments=(Segment(TEXT, text),) if text else ())


whole_transcription = partial(WholeReader, _read_transcription)
