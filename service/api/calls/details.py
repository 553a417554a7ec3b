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
