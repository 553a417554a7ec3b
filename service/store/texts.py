"""Text that every database can hold."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic_core import to_json

from service.job import Segment

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(text: str) -> str:
    """The text without NUL, which PostgreSQL refuses, and without lone surrogates, which are no characters.

    Clients and models write both, as JSON escapes. Requests and outputs are stored as JSON, and so keep them.
    """
    if "\0" in text:
        text = text.replace("\0", _REPLACEMENT)
    if not text.isascii() and _has_surrogates(text):
        text = "".join(_REPLACEMENT if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def segments_text(segments: Sequence[Segment]) -> str:
    """Segments as JSON. What cannot be stored as characters becomes escapes."""
    try:
        return to_json(segments).decode()
    except ValueError:
        return json.dumps(segments, separators=(",", ":"))


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
