"""Streamed replies, cut into the pieces that they are made of."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from corral.errors import ConnectionFailedError

LAST_DATA = "[DONE]"
"""The data of OpenAI's last event, which is no JSON."""
LAST_TYPES = ("message_stop", "response.completed", "response.failed", "response.incomplete")
"""The types of Anthropic's last event, and of those of OpenAI's responses."""


async def lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a stream, however it was cut into pieces. Only a line feed ends one: JSON may hold all other
    characters at which text is split into lines. The last may lack it.
    """
    held: list[bytes] = []
    async for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for line in whole:
            held.append(line)
            joined = b"".join(held)
            held.clear()
            if joined.strip():
                yield joined
        if rest:
            held.append(rest)
    last = b"".join(held)
    if last.strip():
        yield last


def parsed(text: str | bytes) -> Any:
    """Raises ConnectionFailedError for half an object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConnectionFailedError(f"a part of the reply is missing or broken: {error}") from error
    if not isinstance(found, dict):
        raise ConnectionFailedError(f"a part of the reply is no object: {str(found)[:60]!r}")
    return found
