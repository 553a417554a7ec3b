"""What a drop-in dialect brings along: how its bodies are read and how its errors look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.api.dropin.details import CallDetails
from service.api.http.failures import ErrorShape
from service.model_limits import ModelLimits

Describe = Callable[[str, dict[str, Any], str, ModelLimits], CallDetails | None]
"""From endpoint, body, the caller's Accept header and the operator's limits to what the queue must know; None: let
Ollama refuse it.
"""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of calling Ollama."""

    door: str
    describe: Describe
    shape: ErrorShape
    """An error as a reply of its own."""
    error_frame: Callable[[str, str], bytes]
    """An error in the middle of a stream: from endpoint and message to the bytes of its last frame."""
    heartbeat: Callable[[str, str], bytes]
    """What may be sent while a stream has not begun: from endpoint and model to bytes that every client passes over."""
