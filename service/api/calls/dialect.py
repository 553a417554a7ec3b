"""What a drop-in dialect brings along: how its bodies are read and how its errors look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from service.api.failures import Shape


class CallDetails(NamedTuple):
    """What the queue must know of a call; everything else in its body is Ollama's business."""

    model: str
    prompt: str
    """The words to show in a list."""
    is_streamed: bool
    runner: str
    body: dict[str, Any] | None = None
    """The body to send instead of the caller's own, where that is not what Ollama takes; None: as it came."""
    is_unload: bool = False
    """It asks for the model to be unloaded, which needs no turn and must never load it."""


Describe = Callable[[str, dict[str, Any], str], CallDetails | None]
"""From endpoint, body and the caller's Accept header to what the queue must know; None: let Ollama refuse it."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of calling Ollama."""

    door: str
    describe: Describe
    shape: Shape
    """An error as a reply of its own."""
    error_frame: Callable[[str, str], bytes]
    """An error in the middle of a stream: from endpoint and message to the bytes of its last frame."""
    heartbeat: Callable[[str, str], bytes]
    """What may be sent while a stream has not begun: from endpoint and model to bytes that every client passes over."""
