"""What the queue must know of a call, as each dialect's translation finds it in the body."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class CallDetails(NamedTuple):
    """Everything else in the body is Ollama's business."""

    model: str
    prompt: str
    """The words to show in a list."""
    is_streamed: bool
    runner: str
    body: dict[str, Any] | None = None
    """The body to send instead of the caller's own, where that is not what Ollama takes; None: as it came."""
    is_unload: bool = False
    """It asks for the model to be unloaded, which needs no turn and must never load it."""


def frame_bytes(value: dict[str, Any]) -> bytes:
    """JSON for a frame of a stream, on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


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
