"""What a drop-in dialect brings along: how its bodies are read, and what its streams are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.api.dropin.details import CallDetails
from service.endpoints import Endpoint
from service.model_limits import ModelLimits

Describe = Callable[[Endpoint, dict[str, Any], bool, ModelLimits], CallDetails | None]
"""From endpoint, body, whether one object is wanted although the body does not say so, and the operator's limits to
what the queue must know; None: the body names no model that Ollama could have, so that Ollama refuses it.
"""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of calling Ollama. Its endpoints are the rows of :mod:`service.endpoints` with its name as their door."""

    door: str
    describe: Describe
    nothing: str
    """What Ollama says of an empty body."""
    stream_type: str
    """The media type of its streams."""
    error_frame: Callable[[str, str, int | None], bytes]
    """An error in a stream: from endpoint, message and status to the bytes of its last frame. The status is the one
    that a refusal would have had; None for an answer that broke off.
    """
    heartbeat: Callable[[str, str, int], bytes]
    """A sign of life, which every client passes over: from endpoint, model and the time in milliseconds to bytes that
    may stand between any two lines or events of a stream, and before the first.
    """
