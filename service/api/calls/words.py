"""The words of a request that a list of jobs shows."""

from __future__ import annotations

from typing import Any


def last_words(turns: Any) -> str:
    """The last that the user said in a chat, in whichever API's form; else the last that anybody said."""
    spoken = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    own = [turn for turn in spoken if turn.get("role") == "user"]
    said = own or spoken
    return text_of(said[-1].get("content")) if said else ""


def text_of(content: Any) -> str:
    """The text of a string, of a list of strings, or of content parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str))
